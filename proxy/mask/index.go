package mask

import (
	"math/bits"
	"slices"
)

// keyLen is how many bytes of a pattern or of a detector's anchor the index knows. The first keyLen unescaped bytes of a
// match are always a key.
const keyLen = 4

// An index leads from the first bytes of a match to what may match there.
type index struct {
	patterns  []pattern
	detectors []Detector
	entries   []entry // sorted by key
	slots     []int32 // open addressing: the first entry of a key, -1 for none. The length is a power of two
}

// An entry is a key as it reads in the source, first byte highest, and what it belongs to: a pattern, or, counted down
// from -1, a detector.
type entry struct {
	key  uint32
	what int32
}

func newIndex(patterns []pattern, detectors []Detector) *index {
	x := &index{patterns: patterns, detectors: detectors}
	for i := range patterns {
		p := &patterns[i]
		x.add(int32(i), [][]byte{
			p.kind.variants(nil, p.b[0]), p.kind.variants(nil, p.b[1]),
			p.kind.variants(nil, p.b[2]), p.kind.variants(nil, p.b[3])})
	}
	for i := range detectors {
		for _, anchor := range detectors[i].Anchors {
			x.add(^int32(i), anchorBytes(anchor, detectors[i].after))
		}
	}
	slices.SortFunc(x.entries, func(a, b entry) int {
		if a.key != b.key {
			if a.key < b.key {
				return -1
			}
			return 1
		}
		return int(a.what) - int(b.what)
	})
	x.entries = slices.Compact(x.entries)
	x.hash()
	return x
}

// add enters what under every key that the bytes of the four places make.
func (x *index) add(what int32, places [][]byte) {
	keys := []uint32{0}
	for _, place := range places {
		var longer []uint32
		for _, k := range keys {
			for _, c := range place {
				longer = append(longer, k<<8|uint32(c))
			}
		}
		keys = longer
	}
	for _, k := range keys {
		x.entries = append(x.entries, entry{k, what})
	}
}

func (x *index) hash() {
	size := 16
	for size < 2*len(x.entries) {
		size *= 2
	}
	x.slots = slices.Repeat([]int32{-1}, size)
	for i, e := range x.entries {
		if i > 0 && x.entries[i-1].key == e.key {
			continue
		}
		at := slot(e.key, size)
		for x.slots[at] >= 0 {
			at = (at + 1) & (size - 1)
		}
		x.slots[at] = int32(i)
	}
}

func slot(key uint32, size int) int { return int(uint64(key*0x9e3779b1) * uint64(size) >> 32) }

// find gives the entries of a key.
func (x *index) find(key uint32) []entry {
	for at := slot(key, len(x.slots)); x.slots[at] >= 0; at = (at + 1) & (len(x.slots) - 1) {
		first := int(x.slots[at])
		if x.entries[first].key != key {
			continue
		}
		end := first + 1
		for end < len(x.entries) && x.entries[end].key == key {
			end++
		}
		return x.entries[first:end]
	}
	return nil
}

// begins reports whether some key begins with the n low bytes of prefix, n from 1 to 3, where what stands before it has
// the base64 value v, or none (-1).
func (x *index) begins(prefix uint32, n, v int) bool {
	shift := 8 * (keyLen - n)
	low := prefix << shift
	i, _ := slices.BinarySearchFunc(x.entries, low, func(e entry, low uint32) int {
		switch {
		case e.key < low:
			return -1
		case e.key > low:
			return 1
		}
		return 0
	})
	for ; i < len(x.entries) && x.entries[i].key>>shift == prefix; i++ {
		if what := x.entries[i].what; v < 0 || what < 0 || !x.patterns[what].before.rulesOut(v) {
			return true
		}
	}
	return false
}

// A filter says of most places that nothing begins there.
type filter struct {
	triples [1024]uint64 // a bit for the hash of each three bytes that are first or second in a key
	early   [256]bool    // the bytes that occur in keys of patterns: detectors read no escapes
	dull    [256]bool    // the bytes behind a backslash that make of it nothing that a key holds
	in64    [256]bool    // the base64 characters
}

func (f *filter) add(x *index) {
	for _, e := range x.entries {
		le := bits.ReverseBytes32(e.key)
		f.set(le & 0xffffff)
		f.set(le >> 8)
		for shift := 0; shift < 32 && e.what >= 0; shift += 8 {
			f.early[byte(e.key>>shift)] = true
		}
	}
	for c := range 256 {
		b := shortEscape(byte(c))
		f.in64[c] = base64Value(byte(c)) >= 0
		f.dull[c] = !isLead(byte(c)) && c != 'u' && !isBreak(b) && (b == 0 || !f.early[b])
	}
}

// triple hashes three bytes, the first one lowest.
func triple(v uint32) uint16 { return uint16(v * 0x9e3779b1 >> 16) }

func (f *filter) set(v uint32) {
	h := triple(v)
	f.triples[h>>6] |= 1 << (h & 63)
}

func (f *filter) has(v uint32) bool { return f.bit(v)&1 != 0 }

// bit gives in its lowest bit whether the three low bytes of v may be in a key.
func (f *filter) bit(v uint32) uint64 {
	h := triple(v & 0xffffff)
	return f.triples[h>>6] >> (h & 63)
}

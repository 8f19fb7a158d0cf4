package mask

import "encoding/binary"

// next gives the first place from pos on at which a match may begin with a key as it is, len(src) when there is none.
func (s *Set) next(src []byte, pos int, closed bool) int {
	f, i := s.filter, pos
	for ; i+8 <= len(src); i += 6 {
		v := binary.LittleEndian.Uint64(src[i:])
		if (f.bit(uint32(v))|f.bit(uint32(v>>16))|f.bit(uint32(v>>32)))&1 == 0 {
			continue
		}
		for at := max(pos, i-1); at < i+5; at++ { // what begins at i+5 shows at the next i
			key := binary.LittleEndian.Uint32(src[at:])
			if f.bit(key)&f.bit(key>>8)&1 != 0 && s.isKey(src[at:]) {
				return at
			}
		}
	}
	for i = max(pos, i-1); i < len(src); i++ {
		if rest := src[i:]; len(rest) >= keyLen {
			if s.isKey(rest) {
				return i
			}
		} else if !closed && s.begins(prefixKey(rest), len(rest), -1) {
			return i
		}
	}
	return len(src)
}

func prefixKey(b []byte) (key uint32) {
	for _, c := range b {
		key = key<<8 | uint32(c)
	}
	return key
}

func (s *Set) isKey(src []byte) bool {
	key := binary.BigEndian.Uint32(src)
	for _, x := range s.layers {
		if len(x.find(key)) > 0 {
			return true
		}
	}
	return false
}

func (s *Set) begins(prefix uint32, n, v int) bool {
	for _, x := range s.layers {
		if x.begins(prefix, n, v) {
			return true
		}
	}
	return false
}

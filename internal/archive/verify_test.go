package archive_test

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/jobgate/jobgate/internal/archive"
)

const folder = "v1/sessions/dt=2026-11-24/ses_1/"

// finished archives a session in two parts.
func finished(t testing.TB) (*store, archive.Config) {
	t.Helper()
	st, bucket := newStore(t)
	cfg := config(t, bucket)
	a := open(t, cfg)
	for _, id := range []string{"ses_1", "ses_2"} {
		begin(t, a, id)
		call(t, a, id, "call_1")
		flush(t, a)
		call(t, a, id, "call_2")
		end(t, a, id)
	}
	flush(t, a)
	whole(t, cfg, "ses_1")
	return st, cfg
}

// repack changes the lines of a part and compresses them again.
func repack(t *testing.T, part []byte, change func(lines [][]byte) [][]byte) []byte {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	must(t, err)
	defer dec.Close()
	text, err := dec.DecodeAll(part, nil)
	must(t, err)
	lines := bytes.SplitAfter(text, []byte("\n"))
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	defer enc.Close()
	return enc.EncodeAll(bytes.Join(change(lines[:len(lines)-1]), nil), nil)
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	st, cfg := finished(t)
	good := maps.Clone(st.objects)
	part1, part2 := folder+"events-000001.jsonl.zst", folder+"events-000002.jsonl.zst"
	for name, c := range map[string]struct {
		change func(o map[string][]byte)
		want   string
	}{
		"part missing":      {func(o map[string][]byte) { delete(o, part1) }, "events-000001.jsonl.zst: is missing"},
		"last part missing": {func(o map[string][]byte) { delete(o, part2) }, "events-000002.jsonl.zst: is missing"},
		"part more":         {func(o map[string][]byte) { o[folder+"events-000003.jsonl.zst"] = o[part2] }, "events-000003.jsonl.zst: is not in the manifest"},
		"file more":         {func(o map[string][]byte) { o[folder+"events.txt"] = nil }, "events.txt: does not belong here"},
		"parts changed":     {func(o map[string][]byte) { o[part1], o[part2] = o[part2], o[part1] }, "events-000001.jsonl.zst: "},
		"part cut":          {func(o map[string][]byte) { o[part2] = o[part2][:len(o[part2])-5] }, "events-000002.jsonl.zst: has "},
		"part goes on":      {func(o map[string][]byte) { o[part2] = append(bytes.Clone(o[part2]), "x"...) }, "events-000002.jsonl.zst: has "},
		"lines reordered": {func(o map[string][]byte) {
			o[part1] = repack(t, o[part1], func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l })
		}, "events-000001.jsonl.zst: the chain is broken: event 3 stands where 2 belongs"},
		"word changed": {func(o map[string][]byte) {
			o[part1] = repack(t, o[part1], func(l [][]byte) [][]byte {
				l[1] = bytes.Replace(l[1], []byte("POST"), []byte("GET"), 1)
				return l
			})
		}, "events-000001.jsonl.zst: the chain is broken: event 2 was changed"},
		"end dropped": {func(o map[string][]byte) {
			o[part2] = repack(t, o[part2], func(l [][]byte) [][]byte { return l[:len(l)-1] })
		}, "events-000002.jsonl.zst: ends with event 9, the manifest says 10"},
		"opening missing":   {func(o map[string][]byte) { delete(o, folder+"open.jws") }, "open.jws: is missing"},
		"signature missing": {func(o map[string][]byte) { delete(o, folder+"manifest.jws") }, "manifest.jws: is missing"},
		"manifest missing":  {func(o map[string][]byte) { delete(o, folder+"manifest.json") }, "manifest.json: is missing"},
		"manifest changed": {func(o map[string][]byte) {
			o[folder+"manifest.json"] = bytes.Replace(o[folder+"manifest.json"], []byte(`"closed"`), []byte(`"max"`), 1)
		}, "manifest.json: the signature does not hold"},
		"another's opening":   {func(o map[string][]byte) { o[folder+"open.jws"] = o[strings.Replace(folder, "_1", "_2", 1)+"open.jws"] }, "open.jws: signs the opening of session ses_2"},
		"opening as manifest": {func(o map[string][]byte) { o[folder+"manifest.jws"] = o[folder+"open.jws"] }, "manifest.json: the signature does not hold"},
		"all of another": {func(o map[string][]byte) {
			for _, n := range []string{"open.jws", "manifest.json", "manifest.jws", "events-000001.jsonl.zst", "events-000002.jsonl.zst"} {
				o[folder+n] = o[strings.Replace(folder, "_1", "_2", 1)+n]
			}
		}, "manifest.json: is that of session ses_2"},
		"another day": {func(o map[string][]byte) {
			for _, n := range []string{"open.jws", "manifest.json", "manifest.jws", "events-000001.jsonl.zst", "events-000002.jsonl.zst"} {
				o[strings.Replace(folder, "24", "25", 1)+n] = o[folder+n]
			}
		}, "open.jws: the session was opened on 2026-11-24 and lies under another day"},
	} {
		t.Run(name, func(t *testing.T) {
			st.objects = maps.Clone(good)
			c.change(st.objects)
			r := verify(t, cfg, "ses_1")
			if r.OK() || r.Err(at) == nil {
				t.Error("Verify is content")
			}
			found := slices.ContainsFunc(r.Problems, func(p archive.Problem) bool { return strings.HasPrefix(p.String(), c.want) })
			if !found {
				t.Errorf("problems are %q, want one that begins %q", r.Problems, c.want)
			}
		})
	}
	st.objects = maps.Clone(good)
	r, err := archive.Verify(context.Background(), cfg.Bucket, "", "ses_1", newKey(t).KeySet())
	if err != nil || len(r.Problems) != 2 {
		t.Errorf("with another key: %v, %v, want two problems", r.Problems, err)
	}
	for name := range good {
		if strings.Contains(name, "ses_1") && !strings.Contains(name, "open") && !strings.Contains(name, "000001") {
			delete(st.objects, name)
		}
	}
	if r := verify(t, cfg, "ses_1"); r.Finished || len(r.Problems) > 0 || r.Err(at) != nil || r.Err(at.AddDate(0, 0, 1)) == nil {
		t.Errorf("when all but the beginning vanished: %+v, want no complaint while the window is open and one afterwards", r)
	}
}

// A bit changed anywhere in any object is seen. The step visits every byte, and all bits in turn.
func TestVerifySeesEveryBit(t *testing.T) {
	st, cfg := finished(t)
	const step = 9
	for name, data := range st.objects {
		if !strings.HasPrefix(name, folder) {
			continue
		}
		good := bytes.Clone(data)
		for i := 0; i < len(good)*8; i += step {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			st.objects[name] = bad
			r, err := archive.Verify(context.Background(), cfg.Bucket, "", "ses_1", cfg.Signer.KeySet())
			if err != nil || r.OK() {
				t.Fatalf("%s: bit %d of byte %d changed: problems %v, error %v", name, i%8, i/8, r.Problems, err)
			}
		}
		st.objects[name] = good
	}
}

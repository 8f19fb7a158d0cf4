package mask

// Detectors returns the built-in detectors.
func Detectors() []Detector {
	var (
		alnum = chars("A-Za-z0-9")
		word  = chars("A-Za-z0-9_")
		url64 = chars("A-Za-z0-9_-")
	)
	return []Detector{
		{Name: "github", Anchors: []string{"ghp_", "gho_", "ghs_", "ghu_", "ghr_"}, match: shape(word, nil, run(word, 4, 4), endless(alnum, 36))},
		{Name: "anthropic", Anchors: []string{"sk-ant-"}, match: shape(url64, nil, lit("sk-ant-"), endless(url64, 20))},
	}
}

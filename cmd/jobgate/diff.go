package main

import "strings"

const (
	// diffContext is how many lines that stay are shown around those that change.
	diffContext = 2
	// diffCells bounds the work of a comparison. What is larger is shown as all gone and all new.
	diffCells = 4 << 20
)

// diffLines compares two texts line by line: "- " before what goes, "+ " before what comes, "  " before what stays near
// it, and "..." for what stays elsewhere.
func diffLines(before, after string) []string {
	return nearChanges(compareLines(lines(before), lines(after)))
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// compareLines finds a longest common subsequence, between what both begin and end with.
func compareLines(a, b []string) []string {
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	var out []string
	out = prefixed(out, "  ", a[:start])
	out = append(out, compareMiddle(a[start:len(a)-end], b[start:len(b)-end])...)
	return prefixed(out, "  ", a[len(a)-end:])
}

func prefixed(out []string, prefix string, lines []string) []string {
	for _, l := range lines {
		out = append(out, prefix+l)
	}
	return out
}

func compareMiddle(a, b []string) []string {
	if len(a)*len(b) > diffCells {
		return prefixed(prefixed(nil, "- ", a), "+ ", b)
	}
	// common[i][j] is how many lines a[i:] and b[j:] have in common, in their order.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return prefixed(prefixed(out, "- ", a[i:]), "+ ", b[j:])
}

// nearChanges leaves out the lines that stay and are far from a change.
func nearChanges(all []string) []string {
	near := make([]bool, len(all))
	for i, l := range all {
		if l[0] == ' ' {
			continue
		}
		for k := max(0, i-diffContext); k <= min(len(all)-1, i+diffContext); k++ {
			near[k] = true
		}
	}
	var out []string
	for i, l := range all {
		switch {
		case near[i]:
			out = append(out, l)
		case i == 0 || near[i-1]:
			out = append(out, "...")
		}
	}
	return out
}

package cli

// didYouMean proposes the known name that differs least, if only in a letter or
// two.
func didYouMean(word string, known []string) string {
	best, least := "", 3
	for _, name := range known {
		if d := distance(word, name); name != "" && d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the number of letters to insert, delete or replace to get from a
// to b (Levenshtein), of words that are not absurdly long.
func distance(a, b string) int {
	const longest = 32
	if len(a) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

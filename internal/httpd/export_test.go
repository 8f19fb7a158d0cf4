package httpd

// Routes returns "METHOD /path" of what the jobs' side serves beside calls, for the test that holds the OpenAPI file
// against it.
func (j *Jobs) Routes() []string {
	var out []string
	for _, r := range j.router.Routes() {
		out = append(out, r.Method+" "+r.Path)
	}
	return out
}

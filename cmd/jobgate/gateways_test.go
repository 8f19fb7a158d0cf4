package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/testkit"
)

// gatewayRounds is how often each variant is measured; the variants take turns, so that a slow minute of the machine
// falls on all of them.
const (
	gatewayRounds = 5
	gatewayConns  = 32
)

// traffic is one kind of call, and how many of them make a round.
type traffic struct {
	name  string
	calls int
	body  []byte
	sse   bool
}

// BenchmarkGateways compares, in one interleaved run, no gateway, a bare httputil.ReverseProxy with pooled buffers, nginx
// where it is installed, and Jobgate with everything on: session look-up, rules, masking, record. Gateways are processes
// of their own; load generator and upstream share the machine with them. What counts is the ratio to the bare proxy,
// by throughput and by the gateway's CPU time; each figure is the median of the rounds.
//
// The tls rounds have an upstream with TLS, as models have: each event is a record of its own there.
func BenchmarkGateways(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchGateways(b, false) })
	b.Run("tls", func(b *testing.B) { benchGateways(b, true) })
}

func benchGateways(b *testing.B, secure bool) {
	upstream := startUpstream(b, secure)
	var variants []*gateway
	if !secure { // the load generator speaks no TLS
		variants = append(variants, &gateway{name: "direct", address: strings.TrimPrefix(upstream, "http://")})
	}
	variants = append(variants, startBare(b, upstream))
	if g := startNginx(b, upstream); g != nil {
		variants = append(variants, g)
	}
	variants = append(variants, startJobgate(b, upstream))
	for _, kind := range []traffic{
		{name: "1-KiB-JSON-reply", calls: 6000, body: agentBody(512, false)},
		{name: "40-KiB-request", calls: 4000, body: agentBody(40<<10, false)},
		{name: "SSE-of-200-events", calls: 800, body: agentBody(2<<10, true), sse: true},
	} {
		b.Run(kind.name, func(b *testing.B) {
			results := make(map[string][]measured)
			for round := range b.N * gatewayRounds {
				for i := range variants {
					g := variants[(i+round)%len(variants)]
					results[g.name] = append(results[g.name], g.measure(b, kind))
				}
			}
			report(b, variants, results)
		})
	}
}

type measured struct {
	perSecond float64 // calls
	cpu       float64 // of the gateway, seconds per 10,000 calls
	firstByte time.Duration
}

func median[T ~float64 | ~int64](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

func report(b *testing.B, variants []*gateway, results map[string][]measured) {
	pick := func(name string, f func(measured) float64) float64 {
		var list []float64
		for _, m := range results[name] {
			list = append(list, f(m))
		}
		return median(list)
	}
	rate := func(m measured) float64 { return m.perSecond }
	cpu := func(m measured) float64 { return m.cpu }
	first := func(m measured) float64 { return float64(m.firstByte.Microseconds()) }
	b.Logf("  %-8s %10s %8s %16s %8s %18s", "", "calls/s", "ratio", "CPU s per 10,000", "ratio", "first byte, p50 µs")
	for _, g := range variants {
		cpuRatio := "-"
		if c := pick("bare", cpu); g.pid > 0 && c > 0 {
			cpuRatio = fmt.Sprintf("%.2f", pick(g.name, cpu)/c)
		}
		b.Logf("  %-8s %10.0f %8.2f %16.2f %8s %18.0f", g.name, pick(g.name, rate), pick(g.name, rate)/pick("bare", rate), pick(g.name, cpu), cpuRatio, pick(g.name, first))
	}
	b.ReportMetric(pick("jobgate", rate)/pick("bare", rate), "calls/s-ratio")
	b.ReportMetric(pick("jobgate", cpu)/pick("bare", cpu), "cpu-ratio")
	b.ReportMetric(0, "ns/op")
}

// gateway is one variant: where calls go, and the process whose CPU time counts.
type gateway struct {
	name    string
	address string
	path    string // before /v1/messages
	token   string
	pid     int
}

// measure sends the calls over a fixed number of connections.
func (g *gateway) measure(b *testing.B, kind traffic) measured {
	request := g.request(kind)
	var left atomic.Int64
	left.Store(int64(kind.calls))
	var mu sync.Mutex // guards firsts
	var firsts []int64
	before, begun := cpuTime(g.pid), time.Now()
	var work sync.WaitGroup
	for range gatewayConns {
		work.Go(func() {
			conn, err := net.Dial("tcp", g.address)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			r := bufio.NewReaderSize(conn, 64<<10)
			var mine []int64
			for left.Add(-1) >= 0 {
				first, err := oneCall(conn, r, request)
				if err != nil {
					b.Errorf("%s: %v", g.name, err)
					return
				}
				mine = append(mine, int64(first))
			}
			mu.Lock()
			firsts = append(firsts, mine...)
			mu.Unlock()
		})
	}
	work.Wait()
	took := time.Since(begun)
	if len(firsts) == 0 {
		b.Fatalf("%s: no call went through", g.name)
	}
	return measured{
		perSecond: float64(kind.calls) / took.Seconds(), firstByte: time.Duration(median(firsts)),
		cpu: (cpuTime(g.pid) - before).Seconds() * 10000 / float64(kind.calls),
	}
}

func (g *gateway) request(kind traffic) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "POST %s/v1/messages HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAnthropic-Version: 2023-06-01\r\n"+
		"User-Agent: claude-cli/2.1.331 (external, sdk-ts)\r\nX-App: cli\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n", g.path, g.address, orDefault(g.token, worldKey), len(kind.body))
	out.Write(kind.body)
	return out.Bytes()
}

func oneCall(conn net.Conn, r *bufio.Reader, request []byte) (first time.Duration, err error) {
	begun := time.Now()
	if err := conn.SetDeadline(begun.Add(30 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	if _, err := r.Peek(1); err != nil {
		return 0, err
	}
	first = time.Since(begun)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n < 1000) {
		err = fmt.Errorf("status %d with %d bytes", resp.StatusCode, n)
	}
	return first, err
}

// cpuTime is the user and system time of a process, from /proc.
func cpuTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if pid == 0 || err != nil {
		return 0
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // a tick is 1/100 s on Linux
}

// agentBody is a request as an agent sends it, of about so many bytes.
func agentBody(size int, stream bool) []byte {
	var text strings.Builder
	for text.Len() < size {
		text.WriteString(`The user asked to look at \"cmd/main.go\" and to run the tests.\nThe file has these lines:\n\tfunc main() { run() }\n`)
	}
	return []byte(fmt.Sprintf(`{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":%v,"tools":[{"name":"Bash","description":"run","input_schema":{"type":"object"}}],"messages":[{"role":"user","content":[{"type":"text","text":"%s"}]}]}`, stream, text.String()))
}

// startUpstream answers as the Messages API does, without looking, and returns its URL.
func startUpstream(b *testing.B, secure bool) string {
	reply := []byte(`{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"` +
		strings.Repeat("all tests pass. ", 52) + `"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":20}}`)
	var events [][]byte
	add := func(name, data string) {
		events = append(events, []byte("event: "+name+"\ndata: "+data+"\n\n"))
	}
	add("message_start", `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1}}}`)
	add("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	for i := range 196 {
		add("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word %d of it"}}`, i))
	}
	add("content_block_stop", `{"type":"content_block_stop","index":0}`)
	add("message_delta", `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":200}}`)
	add("message_stop", `{"type":"message_stop"}`)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := make([]byte, 512)
		n, _ := io.ReadFull(r.Body, head)
		_, _ = io.Copy(io.Discard, r.Body)
		if !bytes.Contains(head[:n], []byte(`"stream":true`)) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(reply)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for _, e := range events {
			_, _ = w.Write(e)
			_ = rc.Flush()
		}
	}))
	b.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	if !secure {
		srv.Start()
		return srv.URL
	}
	srv.StartTLS()
	file := filepath.Join(b.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Setenv("SSL_CERT_FILE", file) // for the gateways' processes
	return srv.URL
}

// bareVariable makes the test binary a bare reverse proxy: its value is the address to listen on and the upstream's.
const bareVariable = "JOBGATE_TEST_BARE_PROXY"

// startBare starts httputil.ReverseProxy with pooled buffers in a process of its own.
func startBare(b *testing.B, upstream string) *gateway {
	address := benchAddress(b)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), bareVariable+"="+address+" "+upstream)
	startProcess(b, cmd, address)
	return &gateway{name: "bare", address: address, pid: cmd.Process.Pid}
}

func benchAddress(b *testing.B) string {
	address, err := testkit.FreeAddress(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return address
}

func startProcess(b *testing.B, cmd *exec.Cmd, address string) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }) // with its workers
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not listen on %s: %s", cmd.Path, address, out.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type pool struct{ sync.Pool }

func (p *pool) Get() []byte { return p.Pool.Get().([]byte) }

//lint:ignore SA6002 httputil.BufferPool wants slices
func (p *pool) Put(b []byte) { p.Pool.Put(b) }

// serveBare is what the process does. It never returns.
func serveBare(spec string) {
	address, upstream, _ := strings.Cut(spec, " ")
	target, err := url.Parse(upstream)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	buffers := &pool{sync.Pool{New: func() any { return make([]byte, 32<<10) }}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("X-Api-Key", worldKey)
		},
		BufferPool:    buffers,
		FlushInterval: -1,
		Transport:     &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // else it cuts streams whose upstream answers at once
		proxy.ServeHTTP(w, r)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(address, handler))
	os.Exit(1)
}

// startNginx starts nginx, nil where it is not installed.
func startNginx(b *testing.B, upstream string) *gateway {
	path, err := exec.LookPath("nginx")
	if err != nil {
		b.Log("nginx is not installed and not measured: apt-get install nginx-light")
		return nil
	}
	dir, address := b.TempDir(), benchAddress(b)
	scheme, host, _ := strings.Cut(upstream, "://")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  client_body_buffer_size 1m;
  upstream model { server %[2]s; keepalive 64; }
  server { listen %[3]s; location / { proxy_pass %[5]s://model; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ""; proxy_set_header X-Api-Key %[4]s; } } }`,
		dir, host, address, worldKey, scheme)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, "-c", file, "-p", dir)
	startProcess(b, cmd, address)
	return &gateway{name: "nginx", address: address, pid: childOf(cmd.Process.Pid)}
}

// childOf returns the worker of nginx's master.
func childOf(pid int) int {
	for range 100 {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if fields := strings.Fields(string(raw)); err == nil && len(fields) > 0 {
			child, _ := strconv.Atoi(fields[0])
			return child
		}
		time.Sleep(10 * time.Millisecond)
	}
	return pid
}

// serveVariable makes the test binary `jobgate serve`: its value is the configuration file.
const serveVariable = "JOBGATE_TEST_SERVE"

// startJobgate starts the server with everything on, and opens a session.
func startJobgate(b *testing.B, upstream string) *gateway {
	issuer, err := testkit.NewIssuer(testkit.IssuerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = issuer.Close() })
	dir, address := b.TempDir(), benchAddress(b)
	file := filepath.Join(dir, "jobgate.yaml")
	text := fmt.Sprintf(`
public_url: http://%[1]s
listen: %[1]s
data: %[2]s
log: {level: warn}
issuers: [{name: github, provider: github-actions, url: %[3]s}]
connections:
  - {name: anthropic, kind: anthropic, upstream: "%[4]s", credential: {header: x-api-key, value: "env:MODEL_KEY"}}
approvals: {groups: {sre: {emails: [ana@example.com]}}}
mappings:
  - name: agents
    issuer: github
    match: {repository_owner_id: "123456", repository_id: "456789"}
    grants:
      - connection: anthropic
        allow: ["POST /v1/messages"]
        limits: {requests: 100000000, output_tokens: 1000000000000, models: ["claude-*"]}
        rules: %[5]s
`, address, dir, issuer.URL(), upstream, worldRules)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), serveVariable+"="+file, "MODEL_KEY="+worldKey)
	startProcess(b, cmd, address)
	job := issuer.StartJob(issuer.GitHubClaims(map[string]any{"repository_owner_id": "123456", "repository_id": "456789"}))
	b.Cleanup(job.End)
	token, err := job.Token(context.Background(), "http://"+address)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.PostForm("http://"+address+"/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token": {token}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}})
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var opened api.Token
	if err := json.NewDecoder(resp.Body).Decode(&opened); err != nil || opened.AccessToken == "" {
		b.Fatalf("exchange: %v, status %d", err, resp.StatusCode)
	}
	return &gateway{name: "jobgate", address: address, path: "/anthropic", token: opened.AccessToken, pid: cmd.Process.Pid}
}

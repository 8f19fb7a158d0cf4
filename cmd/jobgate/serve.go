package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"gocloud.dev/blob"

	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/approvals/slackapp"
	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/internal/httpd"
	"github.com/jobgate/jobgate/internal/signing"
	"github.com/jobgate/jobgate/internal/store"
	"github.com/jobgate/jobgate/proxy"
	"github.com/jobgate/jobgate/proxy/record"

	_ "gocloud.dev/blob/azureblob" // buckets are opened by URL
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"
)

const (
	// stopGrace is how long calls may go on after the program was told to stop; then they are interrupted.
	stopGrace = 10 * time.Second
	// flushGrace is how long parts are uploaded after that; what is left lies in the spool for the next start.
	flushGrace = 20 * time.Second
)

func serveCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Run the server until SIGTERM or SIGINT. SIGHUP reads the mappings of the configuration file again, and\n" +
			"its mappings_from with all that they name; everything else in it needs a restart.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(o.config)
			if err != nil {
				return err
			}
			log, err := newLogger(cfg.Log, o.env.Stderr)
			if err != nil {
				return err
			}
			s, err := newServer(c.Context(), cfg, o.env, log)
			if err != nil {
				return err
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			defer startTuneGC(c.Context(), o.env.Getenv)()
			return s.run(c.Context(), reload)
		},
	}
}

// server is the program as a value: tests and the demo run it with port 0.
type server struct {
	b        *built
	log      *slog.Logger
	store    *store.DB
	bucket   *blob.Bucket
	archive  *archive.Archive
	signer   *signing.Key
	recorder *recorder
	audit    *auditor
	exchange *federation.Exchange
	desk     *approvals.Desk
	slack    *slackapp.App // nil without Slack
	mappings *federation.Mappings
	sources  *sources
	sessions *federation.Sessions
	stops    *federation.Stops
	hits     *federation.Hits
	apis     *federation.JobAPIs
	poller   *federation.Poller

	jobs, control, socket       net.Listener // control is nil without control.listen
	jobsSrv, controlSrv, sockSv *http.Server
	interrupt                   context.CancelCauseFunc
	grace                       time.Duration // stopGrace
}

// newServer wires the program. The order is the way of a token and of a call: store and record first, then who opens
// sessions, then who asks people, then the calls, then the two sides.
//
// Channels are asked beside Slack.
func newServer(ctx context.Context, cfg *config, env environment, log *slog.Logger, channels ...approvals.Channel) (_ *server, err error) {
	b, err := buildConfig(cfg, env, log)
	if err != nil {
		return nil, err
	}
	s := &server{b: b, log: log, grace: stopGrace}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	keys := filepath.Join(cfg.Data, "keys")
	if s.store, err = store.Open(ctx, store.Config{URL: cfg.Store, Folder: cfg.Data, Log: log}); err != nil {
		return nil, err
	}
	if s.signer, err = signing.Load(keys, signing.Archive); err != nil {
		return nil, err
	}
	placeholders, err := placeholderKey(keys)
	if err != nil {
		return nil, err
	}
	maskers, err := proxy.NewMaskers(placeholders, b.held)
	if err != nil {
		return nil, err
	}
	if err := learnAll(ctx, maskers, b.connections); err != nil {
		return nil, err
	}
	if err := s.openArchive(ctx); err != nil {
		return nil, err
	}
	s.recorder = newRecorder(s.archive, maskers, log)
	s.audit = &auditor{archive: s.archive, maskers: maskers, log: log}
	if s.exchange, err = s.openFederation(ctx); err != nil {
		return nil, err
	}
	slack, err := s.openDesk(ctx, channels)
	if err != nil {
		return nil, err
	}
	metrics := newMetrics(s.archive, s.sessions)
	metrics.registry.MustRegister(newStopsMetric(s.stops))
	metrics.registry.MustRegister(sourceMetrics{s.sources.views})
	hooks, err := federation.NewHooks(federation.HooksConfig{Hooks: b.hooks, Sessions: s.sessions, Log: log})
	if err != nil {
		return nil, err
	}
	var jobs *httpd.Jobs
	calls, err := proxy.New(proxy.Config{
		Connections: b.connections, Sessions: s.sessions, Recorder: s.archive, Approver: s.desk, Maskers: maskers, Log: log, Observe: metrics.observe,
		Stopped: s.stops.Refusal, Hit: countHits(s.hits, metrics.registry),
		Exchange: func(w http.ResponseWriter, r *http.Request, connection string) { jobs.Connect(w, r, connection) },
	})
	if err != nil {
		return nil, err
	}
	s.recorder.wire(s.desk, calls.Forget)
	publicKeys, err := signing.JWKS(s.signer)
	if err != nil {
		return nil, err
	}
	jobs = httpd.NewJobs(httpd.JobsConfig{
		PublicURL: cfg.PublicURL, Exchange: s.exchange, Sessions: s.sessions, Calls: calls, Hooks: hooks, Kinds: b.kinds,
		Keys: publicKeys, Archive: s.location, Ready: s.ready, Log: log,
	})
	explainer, err := federation.NewExplainer(federation.ExplainerConfig{
		Verifier: b.verifier, Mappings: s.mappings.InForce, Connections: b.kinds, Exchange: s.exchange,
	})
	if err != nil {
		return nil, err
	}
	people := httpd.NewPeople(httpd.PeopleConfig{
		Mappings: s.mappings, Sources: s.sources.views, Sessions: auditedSessions{s.sessions, s.audit}, Desk: s.desk, Stops: auditedStops{s.stops, s.audit},
		Hits: s.hits, Explainer: explainer, Planner: federation.Planner{Mappings: s.mappings, Trail: s.store}, Token: b.adminToken, Slack: slack,
		Metrics: promhttp.HandlerFor(metrics.registry, promhttp.HandlerOpts{}), Archive: s.location, Ready: s.ready, Log: log,
	})
	return s, s.listen(jobs, people)
}

// learnAll makes the maskers know every credential before the first call.
func learnAll(ctx context.Context, m *proxy.Maskers, connections []proxy.Connection) error {
	for _, c := range connections {
		if c.Credential == nil {
			continue
		}
		value, err := c.Credential.Credential(ctx)
		if err != nil {
			return err
		}
		if _, err := m.Learn(c.Name, value, proxy.Masks{}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) openArchive(ctx context.Context) (err error) {
	cfg := s.b.config
	var folder string
	if s.bucket, folder, err = openBucket(ctx, cfg.Archive.Bucket); err != nil {
		return err
	}
	s.archive, err = archive.Open(ctx, archive.Config{
		Dir: filepath.Join(cfg.Data, "spool"), Bucket: s.bucket, Prefix: cfg.Archive.Prefix, SyncDir: folder, Signer: s.signer, Log: s.log, Version: versionText(),
		PartAge: time.Duration(cfg.Archive.PartAge), SpoolMax: cfg.Archive.SpoolMax, OnBacklog: cfg.Archive.OnBacklog, Durability: cfg.Archive.Durability,
	})
	return err
}

func (s *server) openFederation(ctx context.Context) (*federation.Exchange, error) {
	var err error
	if s.mappings, err = federation.NewMappings(ctx, federation.MappingsConfig{Store: auditedMappings{s.store, s.audit}, Log: s.log,
		Build: func(spec api.Mapping) (*federation.Mapping, error) {
			return federation.NewMapping(spec, s.b.mappingConfig())
		}}); err != nil {
		return nil, err
	}
	if s.sessions, err = federation.NewSessions(federation.SessionsConfig{Store: s.store, Mappings: s.mappings, Recorder: s.recorder, Log: s.log}); err != nil {
		return nil, err
	}
	if s.sources, err = newSources(s.b, s.mappings, filepath.Join(s.b.config.Data, "sources"), s.log); err != nil {
		return nil, err
	}
	if err := s.sources.start(ctx); err != nil {
		return nil, err
	}
	recovered := federation.Recovered{}
	for _, r := range s.archive.Recovered() {
		if r.Ended {
			continue
		}
		recovered[r.Session] = make(map[string]access.Counts, len(r.Counts))
		for connection, c := range r.Counts {
			recovered[r.Session][connection] = access.Counts(c)
		}
	}
	unknown, err := s.sessions.Restore(ctx, recovered)
	if err != nil {
		return nil, err
	}
	for _, id := range unknown {
		s.log.Warn("a record without a session is closed", "session", id)
		if err := s.archive.End(ctx, id, record.Event{Type: record.TypeSessionEnded, Time: time.Now(),
			Data: record.SessionEnded{Reason: string(access.EndOperator), By: "restart", Interrupted: true}}); err != nil {
			return nil, err
		}
	}
	if s.apis, err = federation.NewJobAPIs(s.b.apis, nil); err != nil {
		return nil, err
	}
	if s.poller, err = federation.NewPoller(federation.PollConfig{Sessions: s.sessions, Liveness: s.apis, Every: s.apis.Every, Log: s.log}); err != nil {
		return nil, err
	}
	if s.stops, err = federation.NewStops(ctx, federation.StopsConfig{
		Store: s.store, Sessions: s.sessions, Connections: slices.Collect(maps.Keys(s.b.kinds)), Mappings: s.mappings.Names, Log: s.log,
	}); err != nil {
		return nil, err
	}
	if s.hits, err = federation.NewHits(ctx, federation.HitsConfig{Store: s.store, Log: s.log}); err != nil {
		return nil, err
	}
	return federation.NewExchange(federation.ExchangeConfig{
		Verify: s.b.verifier.Verify, Liveness: s.apis, Mappings: s.mappings, Sessions: s.sessions, Store: s.store, Stops: s.stops, Hits: s.hits, Log: s.log,
		Audit: s.audit.exchange, Refusals: s.audit.refusals, Trail: auditedTrail{s.store, s.audit},
	})
}

func (s *server) location(session string, opened time.Time) string {
	return s.b.config.Archive.Bucket + " " + s.archive.Location(session, opened)
}

// ready says whether calls can be served: rows can be read and events written.
func (s *server) ready(ctx context.Context) error {
	if err := s.store.Ping(ctx); err != nil {
		return err
	}
	return s.archive.Stats().SpoolError
}

// run serves until ctx ends, then stops in order. Every goroutine of the program is started here or by a part that is
// closed here.
func (s *server) run(ctx context.Context, reload <-chan os.Signal) error {
	background, stop := context.WithCancel(context.Background())
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { s.sessions.Run(background) })
	work.Go(func() { s.poller.Run(background) })
	for _, v := range s.b.variables {
		work.Go(func() { v.follow(background, s.log) })
	}
	work.Go(func() { s.sources.run(background) })
	work.Go(func() { s.hits.Run(background) })
	work.Go(func() { s.sumUp(background) })
	failed := make(chan error, 3)
	serve := func(srv *http.Server, l net.Listener, tls bool) {
		if l == nil {
			return
		}
		work.Go(func() {
			var err error
			if tls {
				err = srv.ServeTLS(l, filePath(s.b, s.b.config.TLS.Cert), filePath(s.b, s.b.config.TLS.Key))
			} else {
				err = srv.Serve(l)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	serve(s.jobsSrv, s.jobs, s.b.config.TLS.Cert != "")
	serve(s.controlSrv, s.control, false)
	serve(s.sockSv, s.socket, false)
	s.log.Info("serving", "public_url", s.b.config.PublicURL, "jobs", s.jobs.Addr().String(), "control", addressOf(s.control),
		"socket", s.socket.Addr().String(), "mappings", len(s.mappings.InForce()), "version", versionText())
	var err error
	for stopped := false; !stopped; {
		select {
		case <-ctx.Done():
			stopped = true
		case err = <-failed:
			stopped = true
		case <-reload:
			s.reload(ctx)
		}
	}
	s.log.Info("stopping: calls under way get a moment to end")
	s.stop(stop, &work)
	return err
}

// stop ends calls, not sessions: those go on after the next start while their windows are open.
func (s *server) stop(stopBackground func(), work *sync.WaitGroup) {
	grace, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	var waiting sync.WaitGroup
	for _, srv := range []*http.Server{s.jobsSrv, s.controlSrv, s.sockSv} {
		waiting.Go(func() {
			if srv == s.jobsSrv {
				if err := srv.Shutdown(grace); err != nil {
					s.interrupt(&access.Error{Code: access.CodeUnavailable, Reason: record.ReasonInterrupted,
						Public: "Jobgate: the server is being restarted and interrupted this call; the session goes on, send it again"})
					last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					defer cancel()
					_ = srv.Shutdown(last)
				}
			} else {
				_ = srv.Shutdown(grace)
			}
			_ = srv.Close()
		})
	}
	waiting.Wait()
	stopBackground()
	work.Wait()
	_ = s.desk.Close()
	s.recorder.close()
	flush, cancelFlush := context.WithTimeout(context.Background(), flushGrace)
	defer cancelFlush()
	s.endAudit(flush)
	if err := s.archive.Flush(flush); err != nil {
		s.log.Warn("not everything is uploaded; the next start goes on", "error", err)
	}
	s.abandon()
	s.log.Info("stopped")
}

// abandon closes what is open, in the opposite order.
func (s *server) abandon() {
	for _, l := range []net.Listener{s.jobs, s.control, s.socket} {
		if l != nil {
			_ = l.Close()
		}
	}
	s.b.close()
	if s.apis != nil {
		s.apis.Close()
	}
	if s.desk != nil {
		_ = s.desk.Close()
	}
	if s.slack != nil {
		_ = s.slack.Close()
	}
	if s.recorder != nil {
		s.recorder.close()
	}
	if s.archive != nil {
		closing, cancel := context.WithTimeout(context.Background(), flushGrace)
		defer cancel()
		if err := s.archive.Close(closing); err != nil {
			s.log.Error("close the archive", "error", err)
		}
	}
	if s.bucket != nil {
		_ = s.bucket.Close()
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("close the store", "error", err)
		}
	}
}

// reload puts the mappings of the file and of its sources in force, all or none.
func (s *server) reload(ctx context.Context) {
	cfg, err := loadConfig(s.b.config.file)
	if err == nil {
		err = s.sources.reload(ctx, cfg)
	}
	if err != nil {
		s.log.Error("the configuration was not taken; what was in force stays in force", "error", err)
		return
	}
	s.log.Info("mappings reloaded", "mappings", len(s.mappings.InForce()))
}

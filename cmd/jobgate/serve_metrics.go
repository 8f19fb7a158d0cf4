package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/archive"
	"github.com/jobgate/jobgate/proxy"
)

type serverMetrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// newMetrics counts by connection and outcome: names of the configuration, nothing that a job chose.
func newMetrics(a *archive.Archive, sessions *federation.Sessions) *serverMetrics {
	m := &serverMetrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "jobgate_calls_total",
			Help: "Calls that ended, by how they ended."}, []string{"connection", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "jobgate_call_duration_seconds",
			Help: "Time from a call's first byte to its end.", Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 1800}}, []string{"connection"}),
	}
	spool := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "jobgate_spool_bytes", Help: "Bytes of the record that are not in the bucket yet."},
		func() float64 { return float64(a.Stats().SpoolBytes) })
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "jobgate_sessions_open", Help: "Sessions that are awake or dormant."},
		func() float64 {
			list, err := sessions.List(context.Background(), true)
			if err != nil {
				return -1
			}
			return float64(len(list))
		})
	m.registry.MustRegister(m.calls, m.seconds, spool, open)
	return m
}

func (m *serverMetrics) observe(e proxy.Ended) {
	m.calls.WithLabelValues(e.Connection, e.Reason).Inc()
	m.seconds.WithLabelValues(e.Connection).Observe(e.Duration.Seconds())
}

package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jobgate/jobgate/internal/api"
)

// sourceMetrics tells of each source of mappings whether what it says is in force. It is no question of readiness: what
// was in force goes on.
type sourceMetrics struct {
	views func() []api.SourceView
}

var sourceOK = prometheus.NewDesc("jobgate_mappings_source_ok", "1: what the source says is in force; 0: it cannot be read, or is wrong.", []string{"source"}, nil)

func (sourceMetrics) Describe(to chan<- *prometheus.Desc) { to <- sourceOK }

func (m sourceMetrics) Collect(to chan<- prometheus.Metric) {
	for _, v := range m.views() {
		value := 0.0
		if v.OK {
			value = 1
		}
		to <- prometheus.MustNewConstMetric(sourceOK, prometheus.GaugeValue, value, v.Source)
	}
}

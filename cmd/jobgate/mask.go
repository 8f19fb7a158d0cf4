package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy"
)

func maskCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "mask < IN > OUT",
		Short: "Mask a stream as the record's masker would",
		Long: "Mask standard input to standard output: the secrets of the configuration file, where there is one,\n" +
			"and everything that the detectors know.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			maskers, err := o.maskers(c)
			if err != nil {
				return err
			}
			masks, err := maskers.For("mask")
			if err != nil {
				return err
			}
			out := bufio.NewWriter(o.env.Stdout)
			stream := masks.Full.NewStream()
			buf := make([]byte, 32<<10)
			for {
				n, err := o.env.Stdin.Read(buf)
				if _, werr := out.Write(stream.Write(nil, buf[:n])); werr != nil {
					return werr
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
				if err := out.Flush(); err != nil {
					return err
				}
			}
			if _, err := out.Write(stream.Close(nil)); err != nil {
				return err
			}
			return out.Flush()
		},
	}
}

// maskers are the configuration's, or only the detectors where no file was named and none is there.
func (o *options) maskers(c *cobra.Command) (*proxy.Maskers, error) {
	cfg, err := loadConfig(o.config)
	if err != nil {
		if c.Flags().Changed("config") {
			return nil, err
		}
		return proxy.NewMaskers(access.NewSecret("jobgate mask without a configuration"), nil)
	}
	b, err := buildConfig(cfg, o.env, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	m, err := proxy.NewMaskers(access.NewSecret("jobgate mask"), b.held)
	if err != nil {
		return nil, err
	}
	return m, learnAll(c.Context(), m, b.connections)
}

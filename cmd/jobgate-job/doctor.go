package main

import "context"

func doctor(context.Context, *options, []string) error { return nil }

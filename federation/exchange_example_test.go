package federation_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/store"
)

// A job's token becomes a session, and the session ends with its mapping.
func ExampleExchange() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "jobgate")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	db, err := store.Open(ctx, store.Config{URL: "sqlite:" + filepath.Join(folder, "jobgate.db")})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = db.Close() }()

	mappings, err := federation.NewMappings(ctx, federation.MappingsConfig{Store: db, Build: build})
	if err != nil {
		log.Fatal(err)
	}
	if err := mappings.Reload(ctx, []federation.Declared{{Spec: agents()}}); err != nil {
		log.Fatal(err)
	}
	sessions, err := federation.NewSessions(federation.SessionsConfig{Store: db, Mappings: mappings, Recorder: &recorder{}})
	if err != nil {
		log.Fatal(err)
	}
	exchange, err := federation.NewExchange(federation.ExchangeConfig{Verify: verify, Mappings: mappings, Sessions: sessions, Store: db})
	if err != nil {
		log.Fatal(err)
	}

	opened, err := exchange.Open(ctx, federation.OpenRequest{Token: "1/first"})
	fmt.Println(opened.Connections, err)

	hash, _ := access.HashToken(opened.Token.Reveal())
	session, _, err := sessions.SessionByToken(ctx, hash)
	fmt.Println(session.Mapping, err)

	fmt.Println(mappings.Delete(ctx, "agents", 0, "Ana"))
	_, _, err = sessions.SessionByToken(ctx, hash)
	fmt.Println(err)
	// Output:
	// [anthropic web] <nil>
	// agents <nil>
	// <nil>
	// Jobgate: the session of mapping "agents" is over: its mapping was deleted
}

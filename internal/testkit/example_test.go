package testkit_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jobgate/jobgate/internal/testkit"
)

// An agent without a gateway: it shows the model's key itself.
func Example() {
	model, err := testkit.NewModel(testkit.ModelConfig{
		Script: testkit.ScriptTools(
			testkit.Step{Say: "I run the tests.", Use: []testkit.ToolUse{{Name: "Bash", Input: `{"command":"make test"}`}}},
			testkit.Step{Say: "They passed."},
		),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	agent, err := testkit.NewAgent(testkit.AgentConfig{
		BaseURL: model.URL(),
		APIKey:  model.Key(),
		Observe: func(e testkit.AgentEvent) {
			if e.Kind == testkit.AgentToolStarted {
				fmt.Println("runs", e.Text)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	text, err := agent.Run(context.Background(), "Test it.")
	fmt.Println(text, err)
	// Output:
	// runs {"command":"make test"}
	// They passed. <nil>
}

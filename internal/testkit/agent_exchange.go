package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// renewBefore is how long before its end the real clients stop using a token.
const renewBefore = 30 * time.Second

// maxAssertion is the largest assertion that the real clients send.
const maxAssertion = 16 << 10

// authenticate sets what the call shows, after an exchange where the token is
// missing or about to end.
func (a *Agent) authenticate(ctx context.Context, h http.Header) error {
	if a.cfg.Identity == nil {
		h.Set("X-Api-Key", a.cfg.APIKey)
		return nil
	}
	if a.token == "" || a.until.Sub(a.cfg.Now()) < renewBefore {
		if err := a.exchange(ctx); err != nil {
			return err
		}
	}
	h.Set("Authorization", "Bearer "+a.token)
	h.Set("Anthropic-Beta", "oauth-2025-04-20")
	return nil
}

// exchange is the request that Anthropic's SDKs make for workload identity
// federation: RFC 7523 in JSON, at the base URL.
func (a *Agent) exchange(ctx context.Context) error {
	assertion, err := a.cfg.Identity(ctx)
	if err != nil {
		return fmt.Errorf("agent: read the job's token: %w", err)
	}
	if len(assertion) > maxAssertion {
		return fmt.Errorf("agent: the job's token has %d bytes, at most %d are sent", len(assertion), maxAssertion)
	}
	body, err := json.Marshal(map[string]string{
		"grant_type":         "urn:ietf:params:oauth:grant-type:jwt-bearer",
		"assertion":          assertion,
		"federation_rule_id": a.cfg.Rule,
		"organization_id":    a.cfg.Organization,
	})
	if err != nil {
		return fmt.Errorf("agent: encode the exchange: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.BaseURL+"/v1/oauth/token", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("agent: exchange: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Anthropic-Beta", "oauth-2025-04-20,oidc-federation-2026-04-01")
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("agent: exchange: %w", err)
	}
	defer resp.Body.Close()
	return a.takeToken(resp)
}

func (a *Agent) takeToken(resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("agent: read the answer to the exchange: %w", err)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	parseErr := json.Unmarshal(raw, &answer)
	if resp.StatusCode != http.StatusOK {
		return &APIError{Status: resp.StatusCode, Type: answer.Error, Message: answer.Description, exchange: true}
	}
	if parseErr != nil || answer.AccessToken == "" {
		// The answer itself may hold a token, so it is not quoted.
		return fmt.Errorf("agent: the answer to the exchange holds no access_token")
	}
	lifetime := time.Duration(answer.ExpiresIn) * time.Second
	a.token, a.until = answer.AccessToken, a.cfg.Now().Add(lifetime)
	a.cfg.Observe(AgentEvent{Kind: AgentExchanged, Text: lifetime.String()})
	return nil
}

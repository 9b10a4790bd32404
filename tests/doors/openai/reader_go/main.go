// Reads chat completion requests as a provider in Go does: encoding/json into a struct, keys without regard to case.
// One request a line on standard input, in base64; what was read as one line of JSON on standard output.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
)

type named struct {
	Name string `json:"name"`
}

type request struct {
	Model               string `json:"model"`
	N                   int64  `json:"n"`
	Stream              bool   `json:"stream"`
	MaxTokens           int64  `json:"max_tokens"`
	MaxCompletionTokens int64  `json:"max_completion_tokens"`
	ServiceTier         string `json:"service_tier"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Tools []struct {
		Type     string `json:"type"`
		Function *named `json:"function"`
		Custom   *named `json:"custom"`
	} `json:"tools"`
	Functions []named `json:"functions"`
	Messages  []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
}

type part struct {
	Type string `json:"type"`
}

type read struct {
	Model     string   `json:"model"`
	N         int64    `json:"n"`
	Stream    bool     `json:"stream"`
	Cap       int64    `json:"cap"`
	Tier      string   `json:"tier"`
	Usage     bool     `json:"usage"`
	Tools     []string `json:"tools"`
	Parts     []string `json:"parts"`
	Malformed string   `json:"malformed,omitempty"`
}

func reading(body []byte) read {
	var asked request
	found := read{Tools: []string{}, Parts: []string{}}
	if err := json.Unmarshal(body, &asked); err != nil {
		found.Malformed = err.Error()
		return found
	}
	found.Model, found.N, found.Stream, found.Tier = asked.Model, asked.N, asked.Stream, asked.ServiceTier
	found.Cap, found.Usage = max(asked.MaxTokens, asked.MaxCompletionTokens), asked.StreamOptions.IncludeUsage
	for _, tool := range asked.Tools {
		switch {
		case tool.Custom != nil:
			found.Tools = append(found.Tools, tool.Custom.Name)
		case tool.Function != nil:
			found.Tools = append(found.Tools, tool.Function.Name)
		default:
			found.Tools = append(found.Tools, tool.Type)
		}
	}
	for _, function := range asked.Functions {
		found.Tools = append(found.Tools, function.Name)
	}
	for _, message := range asked.Messages {
		var parts []part
		if json.Unmarshal(message.Content, &parts) == nil {
			for _, one := range parts {
				found.Parts = append(found.Parts, one.Type)
			}
		}
	}
	return found
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		body, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		line, err := json.Marshal(reading(body))
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(out, "%s\n", line)
	}
}

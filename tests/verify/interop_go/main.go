// Checks a log of ours with the Go reference implementation of C2SP notes and RFC 6962 trees.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type proof struct {
	Index int64
	Leaf  string
	Path  [][]byte
}

type input struct {
	Vkey        string
	Note        string
	Origin      string
	Proofs      []proof
	OldSize     int64
	OldRoot     []byte
	Consistency [][]byte
}

func hashes(raw [][]byte) []tlog.Hash {
	out := make([]tlog.Hash, len(raw))
	for i, h := range raw {
		copy(out[i][:], h)
	}
	return out
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var in input
	check(json.NewDecoder(os.Stdin).Decode(&in))
	verifier, err := note.NewVerifier(in.Vkey)
	check(err)
	opened, err := note.Open([]byte(in.Note), note.VerifierList(verifier))
	check(err)
	lines := strings.SplitN(opened.Text, "\n", 4)
	if lines[0] != in.Origin {
		check(fmt.Errorf("origin %q", lines[0]))
	}
	var size int64
	_, err = fmt.Sscanf(lines[1], "%d", &size)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	for _, p := range in.Proofs {
		check(tlog.CheckRecord(hashes(p.Path), size, root, p.Index, tlog.RecordHash([]byte(p.Leaf))))
		if tlog.CheckRecord(hashes(p.Path), size, root, p.Index, tlog.RecordHash([]byte(p.Leaf+" "))) == nil {
			check(fmt.Errorf("a changed leaf was taken"))
		}
	}
	var old tlog.Hash
	copy(old[:], in.OldRoot)
	check(tlog.CheckTree(hashes(in.Consistency), size, root, in.OldSize, old))
	fmt.Println("ok", size)
}

package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shown are the blocks of Go in a document.
func shown(document string) (blocks []string) {
	for _, after := range strings.Split(document, "\n```go\n")[1:] {
		block, _, _ := strings.Cut(after, "```\n")
		blocks = append(blocks, block)
	}
	return blocks
}

// TestEmbedding: what docs/embedding.md shows is what test/integration runs, to the letter.
func TestEmbedding(t *testing.T) {
	document, err := os.ReadFile(filepath.Join(top, "docs", "embedding.md"))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(top, "test", "integration", "embedding_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := shown(string(document))
	if len(blocks) < 3 || strings.Contains(string(program), strings.Replace(blocks[0], "ctx", "context", 1)) {
		t.Fatalf("%d blocks, or a changed one is not noticed", len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(string(program), "\n\n"+block) {
			t.Errorf("test/integration/embedding_test.go does not run:\n%s", block)
		}
	}
}

// Posts the events whose names it reads, as gzip-compressed JSON lines of a length that it does
// not tell, with nothing but the standard library. Prints the answers.
package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func post(names []string) (*http.Response, error) {
	body, out := io.Pipe()
	go func() {
		compressed := gzip.NewWriter(out)
		lines := json.NewEncoder(compressed)
		for _, name := range names {
			lines.Encode(map[string]string{"n": name})
		}
		out.CloseWithError(compressed.Close())
	}()
	request, err := http.NewRequest("POST", os.Args[1], body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer KEY")
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Content-Encoding", "gzip")
	return http.DefaultClient.Do(request)
}

func main() {
	for given := bufio.NewScanner(os.Stdin); given.Scan(); {
		response, err := post(strings.Fields(given.Text()))
		if err != nil {
			fmt.Println("not sent:", err)
			continue
		}
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		fmt.Println(response.StatusCode, string(answer))
	}
}

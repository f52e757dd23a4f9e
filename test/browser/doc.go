// Package browser shows the status page in a real browser, Chromium. Its tests are behind the build tag browser.
package browser

// Command hello does nothing. Built as a position-independent executable it needs a loader.
package main

func main() {}

"""One word per verb: parse, call, print, exit code."""

__thread int tally __attribute__((tls_model("initial-exec")));
int count(void) { return tally; }

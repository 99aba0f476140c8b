use std::io::{self, BufRead, Write};

/// For each line of standard input: the demangled text, or an empty line for what is no (valid) Rust name.
fn main() -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        let name = String::from_utf8_lossy(&line);
        let text = match rustc_demangle::try_demangle(&name) {
            Ok(found) => format!("{found:#}"),
            Err(_) => String::new(),
        };
        let broken = text.contains("{invalid syntax}") || text.contains("{recursion limit reached}");
        writeln!(out, "{}", if broken { "" } else { &text })?;
    }
    Ok(())
}

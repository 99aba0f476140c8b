//! Looks for a new version, and tries again when that fails.

use backoff::{retry, Error, ExponentialBackoff};

/// Returns how often it had to try: the first three attempts fail.
pub fn retries() -> u32 {
    let mut attempts = 0;
    let request = || {
        attempts += 1;
        let mut runtime = tokio::runtime::Builder::new().basic_scheduler().build().expect("a runtime");
        runtime.block_on(async { if attempts > 3 { Ok(attempts) } else { Err(Error::Transient(attempts)) } })
    };
    retry(ExponentialBackoff::default(), request).unwrap_or(0)
}

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// Retries until the result is `Ok`. Panics with the last `Err` after `limit`.
///
/// ```ignore
/// let tags = eventually(Duration::from_secs(10), async || {
///     let tags = simulator.tags("n1").await;
///     if tags == ["tag:a"] { Ok(tags) } else { Err(format!("n1 has the tags {tags:?}")) }
/// })
/// .await;
/// ```
#[track_caller]
pub fn eventually<T, E: Display>(
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let since = Instant::now();
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(last) if since.elapsed() > limit => {
                    panic!("{caller}: still not so after {} s: {last}", limit.as_secs())
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

//! The bound on ICMP answers: a token bucket, refilled by the clock, of one second's worth.

use crate::abi::Limiter;

const SECOND: u64 = 1_000_000_000;

/// Takes one token if there is one. `now` is in ns of the monotonic clock, `rate` in tokens a second.
#[inline(always)]
#[must_use]
pub fn take(limiter: &mut Limiter, now: u64, rate: u64) -> bool {
    let elapsed = now.saturating_sub(limiter.at);
    if limiter.at == 0 || elapsed >= SECOND {
        limiter.at = now;
        limiter.tokens = rate;
    } else {
        let new = elapsed * rate / SECOND;
        if new > 0 {
            limiter.at = now;
            limiter.tokens = if limiter.tokens + new > rate { rate } else { limiter.tokens + new };
        }
    }
    if limiter.tokens == 0 {
        return false;
    }
    limiter.tokens -= 1;
    true
}

//! Work on each of many targets, shared among the processors. Few targets stay on the thread that asks.

use std::panic::resume_unwind;

/// Below this many items a second thread gains nothing.
const MANY: usize = 1000;

/// What `work` makes of each part of the list, in the list's order.
pub fn in_parts<'i, T: Sync, R: Send>(items: &'i [T], work: impl Fn(&'i [T]) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if items.len() < MANY || threads == 1 {
        return vec![work(items)];
    }
    std::thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads));
        let working: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        working.into_iter().map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_the_list_s_order_and_nothing_is_lost() {
        for length in [0, 1, MANY - 1, MANY, MANY * 7 + 3] {
            let items: Vec<usize> = (0..length).collect();
            let seen: Vec<usize> = in_parts(&items, <[usize]>::to_vec).concat();
            assert_eq!(seen, items);
        }
    }
}

//! The order and the memory of what is remembered of evicted keys.

use std::vec::Vec;

use super::{super::super::document::Edition, *};

fn remembered(capacity: usize) -> (Remembered, impl Fn(u64) -> Seen) {
    let seen = |generation| Seen {
        order: generation,
        state: State::Purged(Edition {
            id: [0; 16],
            generation,
            mac: [0; 32],
        }),
    };
    (Remembered::new(capacity), seen)
}

fn numbered(number: usize) -> KeyId {
    std::format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
}

#[test]
fn remembered_documents_go_in_the_order_in_which_they_came() {
    let (mut remembered, seen) = remembered(3);
    for number in 0..3 {
        remembered.insert(numbered(number), seen(1));
    }
    // Key 0 is inserted again, so key 1 is dropped first.
    remembered.insert(numbered(0), seen(2));
    remembered.insert(numbered(3), seen(1));
    let left = (0..4).filter(|number| remembered.get(&numbered(*number)).is_some());
    assert_eq!(left.collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(remembered.get(&numbered(0)).unwrap().order, 2);
}

/// The table of a map grows when removed entries have left marks in most of it. At this size it does.
#[test]
fn remembered_documents_take_the_stated_memory() {
    const CAPACITY: usize = 7_000;
    let (mut remembered, seen) = remembered(CAPACITY);
    let used = allocation_counter::measure(|| {
        for number in 0..20 * CAPACITY {
            remembered.insert(numbered(number), seen(1));
            // Keys that come back into memory are no longer remembered.
            remembered.remove(&numbered(number / 2));
        }
    });
    assert!(used.bytes_max < 250 * CAPACITY as u64, "{used:?}");
}

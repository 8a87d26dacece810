//! Variables of an image under those of a command.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Settings in the order in which each name came first, with the values that
/// came last. Takes time by their number, which an image may choose.
pub fn merge<K: Eq + Hash + Clone, V>(settings: impl IntoIterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut merged: Vec<(K, V)> = Vec::new();
    for (name, value) in settings {
        match places.entry(name.clone()) {
            Entry::Occupied(place) => {
                if let Some(known) = merged.get_mut(*place.get()) {
                    known.1 = value;
                }
            }
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push((name, value));
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::hash::Hasher;

    thread_local!(static COMPARISONS: Cell<usize> = const { Cell::new(0) });

    /// A name that counts how often it is compared.
    #[derive(Clone, Debug)]
    struct Counting(usize);

    impl PartialEq for Counting {
        fn eq(&self, other: &Self) -> bool {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Counting {}

    impl Hash for Counting {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[test]
    fn later_settings_win_in_the_place_of_the_first() {
        let settings = [("A", 1), ("B", 2), ("A", 3), ("C", 4), ("B", 5)];
        assert_eq!(merge(settings), [("A", 3), ("B", 5), ("C", 4)]);
    }

    #[test]
    fn many_variables_take_time_by_their_number() {
        const COUNT: usize = 100_000;
        let twice = (0..COUNT).chain(0..COUNT);
        let merged = merge(twice.map(|number| (Counting(number), number)));
        assert_eq!(merged.len(), COUNT);
        let comparisons = COMPARISONS.get();
        assert!(comparisons < 4 * COUNT, "{comparisons} comparisons");
    }
}

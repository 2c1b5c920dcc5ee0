//! One option for each of several items, so that the sum of costs is smallest under a budget: a knapsack with groups.

/// What an option of an item takes, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub bytes: u64,
    pub cost: f64,
}

/// Partial sums that are kept between items: with fewer the answer is exact.
const MOST: usize = 1 << 14;

/// A sum over the items so far, none of which has both fewer bytes and less cost.
#[derive(Clone, Copy)]
struct Sum {
    bytes: u64,
    cost: f64,
    /// The sum without the last item, and the option of that.
    from: u32,
    option: u32,
}

/// The option of each item with the smallest sum of costs among those whose bytes fit a budget; none where even the smallest do
/// not. A dynamic program over the sums that nothing beats in both bytes and cost.
pub(super) fn choose(items: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    let least = |item: &Vec<Choice>| item.iter().map(|option| option.bytes).min();
    let mut rest: u64 = items.iter().map(least).sum::<Option<u64>>()?;
    let mut levels: Vec<Vec<Sum>> = vec![vec![Sum { bytes: 0, cost: 0.0, from: 0, option: 0 }]];
    for item in items {
        rest -= least(item)?;
        let before = levels.last().expect("the empty sum");
        let mut sums: Vec<Sum> = Vec::with_capacity(before.len() * item.len());
        for (from, sum) in before.iter().enumerate() {
            sums.extend(item.iter().enumerate().filter_map(|(option, choice)| {
                let bytes = sum.bytes + choice.bytes;
                let (from, option) = (from as u32, option as u32);
                (bytes + rest <= budget).then_some(Sum { bytes, cost: sum.cost + choice.cost, from, option })
            }));
        }
        levels.push(front(sums));
    }
    let last = levels.last().expect("the empty sum");
    // Along a front costs fall.
    let mut at = last.len().checked_sub(1)?;
    let mut chosen = Vec::with_capacity(items.len());
    for level in levels[1..].iter().rev() {
        chosen.push(level[at].option as usize);
        at = level[at].from as usize;
    }
    chosen.reverse();
    Some(chosen)
}

/// The sums that no other beats, by bytes, thinned out evenly where there are too many.
fn front(mut sums: Vec<Sum>) -> Vec<Sum> {
    sums.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost)));
    let mut least = f64::INFINITY;
    sums.retain(|sum| {
        let better = sum.cost < least;
        least = least.min(sum.cost);
        better
    });
    let step = sums.len().div_ceil(MOST).max(1);
    let last = sums.len().saturating_sub(1);
    let mut at = 0..;
    sums.retain(|_| at.next().is_some_and(|i| i % step == 0 || i == last));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_base::SplitMix64;

    #[test]
    fn no_other_choice_under_the_budget_costs_less() {
        let mut random = SplitMix64::new(7);
        for round in 0..200 {
            let mut option = || Choice { bytes: 1 + random.below(40), cost: random.below(1000) as f64 };
            let items: Vec<Vec<Choice>> =
                (0..1 + round % 5).map(|i| (0..2 + i % 3).map(|_| option()).collect()).collect();
            let budget = 10 + (round as u64 * 13) % 140;
            let mut best: Option<f64> = None;
            let all: usize = items.iter().map(Vec::len).product();
            for mut code in 0..all {
                let (mut bytes, mut cost) = (0, 0.0);
                for item in &items {
                    let choice = item[code % item.len()];
                    (bytes, cost, code) = (bytes + choice.bytes, cost + choice.cost, code / item.len());
                }
                if bytes <= budget {
                    best = Some(best.map_or(cost, |best| best.min(cost)));
                }
            }
            let found = choose(&items, budget);
            let sum = |chosen: Vec<usize>| {
                let picked = || items.iter().zip(&chosen).map(|(item, option)| item[*option]);
                assert!(picked().map(|c| c.bytes).sum::<u64>() <= budget, "{round}");
                picked().map(|c| c.cost).sum::<f64>()
            };
            assert_eq!(found.map(sum), best, "round {round}, budget {budget}");
        }
    }

    #[test]
    fn a_network_of_many_layers_is_chosen_for_in_bounded_memory() {
        let mut random = SplitMix64::new(3);
        let mut option = |bytes| Choice { bytes: bytes + random.below(1 << 16), cost: random.below(1 << 20) as f64 };
        let items: Vec<Vec<Choice>> = (0..300).map(|_| [1 << 20, 1 << 21, 1 << 22].map(&mut option).to_vec()).collect();
        let budget = 300 * (1 << 21);
        let chosen = choose(&items, budget).expect("fits");
        let bytes: u64 = items.iter().zip(&chosen).map(|(item, option)| item[*option].bytes).sum();
        assert!(bytes <= budget && bytes > budget / 100 * 99, "{bytes} of {budget}");
        assert_eq!(choose(&items, 300 << 19), None);
    }
}

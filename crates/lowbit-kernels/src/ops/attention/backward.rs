//! The gradient of attention: probabilities are computed again from scores and their logsumexp, tile by tile
//! (arXiv 2307.08691, algorithm 2).

use super::tile::{Factors, HeadRows, Pack, PackTransposed, Probabilities, Product, RowDots, SharedRows, Unpack, View};
use super::{AttentionShape, KEYS, PANEL, Parts, panels, run, tiles};
use crate::ops::check_cu_seqlens;
use crate::pool::SharedMut;
use crate::{Cpu, scratch};
use std::f32::consts::LOG2_E;
use std::ops::Range;

struct Backward<'a> {
    cpu: &'a Cpu,
    shape: AttentionShape,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    logsumexp: &'a [f32],
    dout: &'a [f32],
    dq: SharedMut<'a, f32>,
    dk: SharedMut<'a, f32>,
    dv: SharedMut<'a, f32>,
}

/// One key head of one sequence, `rows` being its tokens rounded up to whole panels.
struct State<'a> {
    /// Keys and values, `[rows, stride]`.
    k: &'a mut [f32],
    v: &'a mut [f32],
    /// Their gradients, `[rows, padded]`.
    dk: &'a mut [f32],
    dv: &'a mut [f32],
    /// Queries of one head and gradients of its output, as rows `[rows, stride]` and as panels `[head_dim, lanes]`.
    q: &'a mut [f32],
    dout: &'a mut [f32],
    q_panels: &'a mut [f32],
    dout_panels: &'a mut [f32],
    /// The gradient of the queries, `[rows, padded]`.
    dq: &'a mut [f32],
    /// Per query: logsumexp in units of log 2, and the dot product of output and its gradient, `[rows]`.
    logsumexp: &'a mut [f32],
    delta: &'a mut [f32],
    /// Probabilities and gradients of scores of one tile, `[keys, lanes]`.
    p: &'a mut [f32],
    d: &'a mut [f32],
}

impl Backward<'_> {
    fn sequence(&self, tokens: Range<usize>, kv_head: usize) {
        let (dim, padded, stride) = (self.shape.head_dim, self.shape.padded(), self.shape.stride());
        let rows = tokens.len().next_multiple_of(PANEL);
        let len = rows * (3 * padded + 4 * stride + 2 * dim + 2) + 2 * KEYS * PANEL;
        let mut scratch = scratch::take(len * size_of::<f32>());
        let mut parts = Parts(scratch.floats());
        let mut state = State {
            k: parts.take(rows * stride),
            v: parts.take(rows * stride),
            dk: parts.take(rows * padded),
            dv: parts.take(rows * padded),
            q: parts.take(rows * stride),
            dout: parts.take(rows * stride),
            dq: parts.take(rows * padded),
            q_panels: parts.take(rows * dim),
            dout_panels: parts.take(rows * dim),
            logsumexp: parts.take(rows),
            delta: parts.take(rows),
            p: parts.take(KEYS * PANEL),
            d: parts.take(KEYS * PANEL),
        };
        for (data, to) in [(self.k, &mut *state.k), (self.v, &mut *state.v)] {
            let from = HeadRows::new(data, self.shape.kv_width(), tokens.start, tokens.len(), kv_head * dim, dim);
            self.cpu.isa.run(Pack { from, scale: 1.0, to, stride });
        }
        state.dk.fill(0.0);
        state.dv.fill(0.0);
        let group = self.shape.group();
        for head in kv_head * group..(kv_head + 1) * group {
            self.load(&tokens, head, &mut state);
            state.dq.fill(0.0);
            for tile in tiles(tokens.len()) {
                for (first, lanes) in panels(tokens.len()) {
                    let queries = lanes.min(tokens.len() - first);
                    let seen = self.shape.reach(first..first + queries, tokens.len());
                    if seen.start < tile.end && tile.start < seen.end {
                        let keys = tile.end.min(seen.end) - tile.start;
                        self.tile(&mut state, tile.start, keys, (first, lanes, queries));
                    }
                }
            }
            self.add_rows(&self.dq, state.dq, self.shape.scale, &tokens, (self.shape.heads, head));
        }
        for (to, from) in [(&self.dk, state.dk), (&self.dv, state.dv)] {
            self.add_rows(to, from, 1.0, &tokens, (self.shape.kv_heads, kv_head));
        }
    }

    /// Brings the queries of a head and what belongs to them into the state.
    fn load(&self, tokens: &Range<usize>, head: usize, state: &mut State) {
        let (shape, isa) = (self.shape, self.cpu.isa);
        let (dim, stride) = (shape.head_dim, shape.stride());
        let rows = |data, first, rows| HeadRows::new(data, shape.width(), first, rows, head * dim, dim);
        state.logsumexp.fill(0.0);
        state.delta.fill(0.0);
        for (first, lanes) in panels(tokens.len()) {
            let (row, queries) = (tokens.start + first, lanes.min(tokens.len() - first));
            let (q, dout) = (rows(self.q, row, queries), rows(self.dout, row, queries));
            let panel = first * dim..first * dim + lanes * dim;
            isa.run(Pack { from: q, scale: shape.scale, to: &mut state.q[first * stride..], stride });
            isa.run(Pack { from: dout, scale: 1.0, to: &mut state.dout[first * stride..], stride });
            let to = &mut state.q_panels[panel.clone()];
            isa.run(PackTransposed { from: q, scale: shape.scale * LOG2_E, to, lanes });
            let to = &mut state.dout_panels[panel];
            isa.run(PackTransposed { from: dout, scale: 1.0, to, lanes });
            isa.run(RowDots { a: dout, b: rows(self.out, row, queries), dots: &mut state.delta[first..first + lanes] });
            for i in 0..queries {
                state.logsumexp[first + i] = self.logsumexp[(row + i) * shape.heads + head] * LOG2_E;
            }
        }
    }

    /// Adds what `keys` keys from `start` and the queries of a panel give to each other's gradients.
    fn tile(&self, state: &mut State, start: usize, keys: usize, (first, lanes, queries): (usize, usize, usize)) {
        let (isa, dim, padded, stride) = (self.cpu.isa, self.shape.head_dim, self.shape.padded(), self.shape.stride());
        let rows = |from: usize, count: usize, width: usize| from * width..(from + count) * width;
        let panel = first * dim..first * dim + lanes * dim;
        let (p, d) = (&mut state.p[..keys * lanes], &mut state.d[..keys * lanes]);
        for (data, panels, to) in [(&*state.k, &*state.q_panels, &mut *p), (state.v, state.dout_panels, &mut *d)] {
            isa.run(Product::<false> {
                a: View { data: &data[rows(start, keys, stride)], row: stride, col: 1 },
                b: &panels[panel.clone()],
                b_row: lanes,
                c: to,
                c_row: lanes,
                m: keys,
                n: lanes,
                k: dim,
                add: false,
                mask: None,
            });
        }
        let mask = self.shape.mask(first, lanes, start, keys);
        isa.run(Probabilities {
            p,
            d,
            lanes,
            mask,
            logsumexp: &state.logsumexp[first..first + lanes],
            delta: &state.delta[first..first + lanes],
        });
        for (data, from, to) in [(&*p, &*state.dout, &mut *state.dv), (d, state.q, state.dk)] {
            isa.run(Product::<false> {
                a: View { data, row: lanes, col: 1 },
                b: &from[rows(first, queries, stride)],
                b_row: stride,
                c: &mut to[rows(start, keys, padded)],
                c_row: padded,
                m: keys,
                n: padded,
                k: queries,
                add: true,
                mask: None,
            });
        }
        isa.run(Product::<false> {
            a: View { data: d, row: 1, col: lanes },
            b: &state.k[rows(start, keys, stride)],
            b_row: stride,
            c: &mut state.dq[rows(first, queries, padded)],
            c_row: padded,
            m: queries,
            n: padded,
            k: keys,
            add: true,
            mask,
        });
    }

    /// `to += scale * from` for the rows of one of `heads` heads.
    fn add_rows(
        &self,
        to: &SharedMut<f32>,
        from: &[f32],
        scale: f32,
        tokens: &Range<usize>,
        (heads, head): (usize, usize),
    ) {
        let dim = self.shape.head_dim;
        let first = (tokens.start * heads + head) * dim;
        let to = SharedRows { data: to, first, stride: heads * dim, cols: dim };
        let factors = Factors::Same(scale);
        // SAFETY: each head of each token belongs to one task.
        unsafe { Unpack { from, factors, rows: tokens.len(), add: true, to }.run(self.cpu.isa) };
    }
}

/// The gradient of [`attention`](super::attention): from its arguments, its results and the gradient of `out` to those of
/// `q`, `k` and `v`: `dq +=`, `dk +=`, `dv +=`.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    cpu: &Cpu,
    shape: AttentionShape,
    cu_seqlens: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    logsumexp: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let tokens = logsumexp.len() / shape.heads.max(1);
    check_cu_seqlens(cu_seqlens, tokens);
    shape.check(tokens, q.len(), tokens, k.len(), v.len());
    shape.check(tokens, dq.len(), tokens, dk.len(), dv.len());
    assert_eq!((out.len(), dout.len()), (q.len(), q.len()), "out and dout are as long as q");
    let (dq, dk, dv) = (SharedMut::new(dq), SharedMut::new(dk), SharedMut::new(dv));
    let backward = Backward { cpu, shape, q, k, v, out, logsumexp, dout, dq, dk, dv };
    let items = cu_seqlens.windows(2).flat_map(|w| (0..shape.kv_heads).map(move |head| (w[0], w[1], head))).collect();
    let cost = |&(start, end, _): &(usize, usize, usize)| {
        let (len, window) = (end - start, shape.window.unwrap_or(usize::MAX));
        5 * shape.group() * len * len.min(window) * shape.head_dim / if shape.causal { 2 } else { 1 }
    };
    run(&cpu.pool, items, cost, |(start, end, head)| backward.sequence(start..end, head));
}

// Drawing tokens from logits.

#include <optional>

#include "common.h"

using namespace mlt;

namespace {

constexpr int kTop = 20;  // likeliest tokens that are told of

struct Candidate {
  float x;  // (logit - max) / temperature
  int32_t id;
};

// The kTop largest logits seen so far, largest first (ties: lower id first), when offered by rising id.
struct Likeliest {
  float logit[kTop];
  int32_t id[kTop];

  Likeliest() {
    std::fill(logit, logit + kTop, -INFINITY);
    std::fill(id, id + kTop, -1);
  }

  float least() const { return logit[kTop - 1]; }

  void insert(float x, int32_t token) {  // x > least()
    int place = kTop - 1;
    for (; place > 0 && logit[place - 1] < x; --place) {
      logit[place] = logit[place - 1];
      id[place] = id[place - 1];
    }
    logit[place] = x;
    id[place] = token;
  }

  int count() const {
    int number = 0;
    while (number < kTop && id[number] >= 0) ++number;
    return number;
  }
};

// The tokens that a row may draw: bit v % 32 of word v / 32 for token v; all when `words` is null.
struct Allowed {
  const uint32_t* words;

  __mmask16 from(int v) const {  // of 16 tokens, v % 16 == 0
    return words == nullptr ? 0xffff : static_cast<__mmask16>(words[v / 32] >> (v % 32));
  }
  bool has(int32_t id) const { return words == nullptr || words[id / 32] >> (id % 32) & 1; }
};

// Whether a row of V logits has no NaN and a finite largest one among those allowed; fills `likeliest` from these.
bool scan(const float* row, int V, const Allowed& allowed, Likeliest* likeliest) {
  __mmask16 broken = 0;
  __m512 least = _mm512_set1_ps(likeliest->least());
  for (int v = 0; v < V; v += 16) {
    const __m512 x = _mm512_loadu_ps(row + v);
    broken |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __mmask16 larger = _mm512_mask_cmp_ps_mask(allowed.from(v), x, least, _CMP_GT_OQ);
    if (larger) {
      for (; larger; larger &= larger - 1) {
        const int id = v + __builtin_ctz(larger);
        if (row[id] > likeliest->least()) likeliest->insert(row[id], id);
      }
      least = _mm512_set1_ps(likeliest->least());
    }
  }
  return !broken && std::isfinite(likeliest->logit[0]);
}

// What a row draws from: its allowed logits as weights exp(x), x = (logit - top) / temperature.
struct Weights {
  const float* row;
  Allowed allowed;
  float top, inverse;

  float x(int32_t id) const { return allowed.has(id) ? (row[id] - top) * inverse : -INFINITY; }
  double of(int32_t id) const { return std::exp(static_cast<double>(x(id))); }
};

// Sums over a row of exp(x), exp(x) x, x = logit - top, and of the weights it draws with: float over short stretches,
// double across them.
struct Sums {
  double mass = 0, weighted = 0, tempered = 0;
};

Sums sum_row(const float* row, int V, float top, const Weights& weights) {
  const __m512 vtop = _mm512_set1_ps(top);
  const __m512 drawn_top = _mm512_set1_ps(weights.top), inverse = _mm512_set1_ps(weights.inverse);
  const bool same = weights.inverse == 1.0f && weights.allowed.words == nullptr;
  Sums sums;
  for (int start = 0; start < V; start += 4096) {
    const int end = std::min(V, start + 4096);
    __m512 s = _mm512_setzero_ps(), e = s, t = s;
    for (int v = start; v < end; v += 16) {
      const __m512 logit = _mm512_loadu_ps(row + v), x = _mm512_sub_ps(logit, vtop);
      const __m512 p = exp_ps(x);
      s = _mm512_add_ps(s, p);
      e = _mm512_fmadd_ps(p, _mm512_max_ps(x, _mm512_set1_ps(-1e4f)), e);
      if (same) continue;
      const __m512 weight = exp_ps(_mm512_mul_ps(_mm512_sub_ps(logit, drawn_top), inverse));
      t = _mm512_mask_add_ps(t, weights.allowed.from(v), t, weight);
    }
    sums.mass += reduce_add(s);
    sums.weighted += reduce_add(e);
    sums.tempered += reduce_add(t);
  }
  if (same) sums.tempered = sums.mass;
  return sums;
}

struct Filter {
  float top_p;
  size_t limit;     // top_k, V when it is off
  bool unfiltered;  // every token is kept
  float min_p;
  double uniform;
};

// A token that was guessed by drawing it from a distribution q over `width` tokens (ids, padded with -1).
struct Draft {
  int32_t token;
  double accept_uniform;
  const int32_t* ids;
  const float* probs;
  int width;
  double total = 0;  // of probs: q is divided by it

  Draft(int32_t token, double accept_uniform, const int32_t* ids, const float* probs, int width)
      : token(token), accept_uniform(accept_uniform), ids(ids), probs(probs), width(width) {
    for (int i = 0; i < width && ids[i] >= 0; ++i) total += probs[i];
  }

  double q(int32_t id) const {
    for (int i = 0; i < width && ids[i] >= 0; ++i)
      if (ids[i] == id) return probs[i] / total;
    return 0;
  }
};

// All allowed tokens whose logit is above `bound`, in order of rank.
std::vector<Candidate> collect(const Weights& weights, int V, float bound) {
  const float* row = weights.row;
  std::vector<Candidate> found;
  found.reserve(256);
  const __m512 vbound = _mm512_set1_ps(bound);
  for (int v = 0; v < V; v += 16) {
    __mmask16 mask = _mm512_mask_cmp_ps_mask(weights.allowed.from(v), _mm512_loadu_ps(row + v), vbound, _CMP_GT_OQ);
    for (; mask; mask &= mask - 1) {
      const int id = v + __builtin_ctz(mask);
      found.push_back({weights.x(id), id});
    }
  }
  std::sort(found.begin(), found.end(), [row](const Candidate& a, const Candidate& b) {
    return row[a.id] > row[b.id] || (row[a.id] == row[b.id] && a.id < b.id);
  });
  return found;
}

// The tokens that a row draws from, as far as the candidates tell: the first `count`, and all others if `tail`.
struct Target {
  size_t count;
  bool tail;
  double mass;  // of all of them
};

// The token at `uniform` of what is drawn from; with a draft, of what it leaves: max(p - q, 0). -1 when it may depend
// on tokens that are not among the candidates.
int32_t draw(const std::vector<Candidate>& candidates, const Target& target, double uniform, const Weights& weights,
             const Draft* draft) {
  const auto left_of = [&](const Candidate& candidate) {
    const double weight = std::exp(static_cast<double>(candidate.x));
    return draft == nullptr ? weight : std::max(weight - draft->q(candidate.id) * target.mass, 0.0);
  };
  double left = target.mass;
  if (draft != nullptr && target.tail) {
    for (int i = 0; i < draft->width && draft->ids[i] >= 0; ++i)
      left -= std::min(weights.of(draft->ids[i]), draft->q(draft->ids[i]) * target.mass);
  } else if (draft != nullptr) {
    left = 0;
    for (size_t i = 0; i < target.count; ++i) left += left_of(candidates[i]);
  }
  if (draft != nullptr && left <= 0) return draw(candidates, target, uniform, weights, nullptr);  // p = q
  double rest = uniform * left;
  int32_t chosen = -1;
  for (size_t i = 0; i < target.count; ++i) {
    const double mass = left_of(candidates[i]);
    if (mass <= 0) continue;
    chosen = candidates[i].id;
    rest -= mass;
    if (rest < 0) return chosen;
  }
  return target.tail ? -1 : chosen;  // in the tail, or rounding at the end
}

// Whether the draft is taken: with probability min(1, p / q) of it.
bool accepts(const std::vector<Candidate>& candidates, const Target& target, const Weights& weights,
             const Draft& draft) {
  const auto end = candidates.begin() + target.count;
  const bool kept =
      target.tail || std::any_of(candidates.begin(), end, [&](const Candidate& c) { return c.id == draft.token; });
  return kept && draft.accept_uniform * draft.q(draft.token) * target.mass < weights.of(draft.token);
}

// The row's token, or -1 when it may depend on tokens that are not among the candidates. The candidates are the first
// in order of rank; any other has an x of at most `floor`. `tempered` is the mass of all tokens that are allowed.
int32_t choose(const std::vector<Candidate>& candidates, const Filter& filter, double tempered, float floor,
               const Weights& weights, const Draft* draft) {
  const bool complete = floor == -INFINITY;
  size_t count = 0;  // tokens that are kept, and their mass
  double kept_mass = 0;
  bool enough = complete;  // no token at the floor or below it is kept
  const auto full = [&] {
    return count >= filter.limit || (count > 0 && filter.top_p < 1 && kept_mass >= filter.top_p * tempered);
  };
  for (; count < candidates.size(); ++count) {
    const double p = std::exp(static_cast<double>(candidates[count].x));
    if (full() || (count > 0 && p < filter.min_p)) {
      enough = true;
      break;
    }
    kept_mass += p;
  }
  enough = enough || full() || std::exp(static_cast<double>(floor)) < filter.min_p;
  if (!enough && !filter.unfiltered) return -1;
  const Target target{count, !enough, enough ? kept_mass : tempered};
  if (draft != nullptr && accepts(candidates, target, weights, *draft)) return draft->token;
  return draw(candidates, target, filter.uniform, weights, draft);
}

}  // namespace

extern "C" {

// Draw one token a row. logits [M, V] (V % 16 == 0); per row: temperature (0 = greedy), top_p, top_k (0 = off),
// min_p, uniform in [0, 1), and forced: -1, or the token to take instead of drawing, or -2 to take none. Tokens are
// ranked by probability (ties: lower id first); the draw inverts the cumulative distribution in that order.
// A row with a mask draws as if the tokens it does not allow had probability zero (-2 when none is left): mask_of [M]
// has its number in masks [C, ceil(V / 32)], or -1, or is null.
// Out: token; at temperature 1 (nats), of the row without its mask, its log-probability, the entropy, the log of the
// normaliser, and the kTop likeliest tokens [M, kTop] with their log-probabilities (-1 and minus infinity where there
// are fewer).
// A row with a draft takes it or not by the rule of accept_rule.py: draft_of [M] has its number, or -1, or is null; of
// each draft: token, accept_uniform, and ids, probs [width], padded with -1. (A greedy row draws its likeliest token
// by that rule too: p is all there, and so is what q leaves of it.)
// A row with a NaN, or whose largest logit is infinite, has no distribution: token -1, ids -1, the rest NaN.
void mlt_sample(const float* logits, int M, int V, const float* temperature, const float* top_p, const int32_t* top_k,
                const float* min_p, const double* uniform, const int32_t* forced, const int32_t* mask_of,
                const uint32_t* masks, const int32_t* draft_of, const int32_t* draft_tokens,
                const double* accept_uniform, const int32_t* q_ids, const float* q_probs, int q_width, int32_t* token,
                float* logprob, float* entropy, float* log_normalizer, int32_t* top_ids, float* top_logprobs) {
  const int words = (V + 31) / 32;
  parallel(M, [&](int m) {
    const float* row = logits + static_cast<int64_t>(m) * V;
    Likeliest likeliest;
    if (!scan(row, V, Allowed{nullptr}, &likeliest)) {  // no distribution: -1 tells the caller
      token[m] = -1;
      logprob[m] = entropy[m] = log_normalizer[m] = NAN;
      std::fill_n(top_ids + m * kTop, kTop, -1);
      std::fill_n(top_logprobs + m * kTop, kTop, NAN);
      return;
    }
    const float top = likeliest.logit[0];
    const int64_t number = mask_of == nullptr || forced[m] != -1 ? -1 : mask_of[m];
    const Allowed allowed{number < 0 ? nullptr : masks + number * words};
    Likeliest drawable = likeliest;  // the likeliest that are allowed: the same ones, most of the time
    if (!std::all_of(likeliest.id, likeliest.id + likeliest.count(), [&](int32_t id) { return allowed.has(id); })) {
      drawable = Likeliest();
      scan(row, V, allowed, &drawable);
    }
    const bool some = drawable.count() > 0;
    const bool draws = forced[m] == -1 && temperature[m] > 0 && some;
    const Weights weights{row, draws ? allowed : Allowed{nullptr}, draws ? drawable.logit[0] : top,
                          draws ? 1.0f / temperature[m] : 1.0f};
    const Sums sums = sum_row(row, V, top, weights);
    const double log_mass = std::log(sums.mass);
    const auto logprob_of = [&](float logit) { return static_cast<float>((logit - top) - log_mass); };
    entropy[m] = static_cast<float>(std::max(0.0, log_mass - sums.weighted / sums.mass));
    log_normalizer[m] = static_cast<float>(top + log_mass);
    for (int i = 0; i < kTop; ++i) {
      top_ids[m * kTop + i] = likeliest.id[i];
      top_logprobs[m * kTop + i] = logprob_of(likeliest.logit[i]);
    }
    int32_t chosen = forced[m] != -1 ? forced[m] : some ? drawable.id[0] : -2;
    if (draws) {
      const size_t limit = top_k[m] > 0 ? static_cast<size_t>(top_k[m]) : static_cast<size_t>(V);
      const bool unfiltered = top_p[m] >= 1 && min_p[m] <= 0 && limit >= static_cast<size_t>(V);
      const Filter filter{top_p[m], limit, unfiltered, min_p[m], uniform[m]};
      std::optional<Draft> guess;
      if (const int64_t c = draft_of == nullptr ? -1 : draft_of[m]; c >= 0)
        guess.emplace(draft_tokens[c], accept_uniform[c], q_ids + c * q_width, q_probs + c * q_width, q_width);
      const Draft* draft = guess ? &*guess : nullptr;
      std::vector<Candidate> candidates;  // the likeliest first, then the likely, then all
      for (int i = 0; i < drawable.count(); ++i) candidates.push_back({weights.x(drawable.id[i]), drawable.id[i]});
      const float least = drawable.count() < kTop ? -INFINITY : candidates.back().x;
      chosen = choose(candidates, filter, sums.tempered, least, weights, draft);
      for (float floor = -12.0f; chosen < 0; floor = -INFINITY) {
        const float bound = floor == -INFINITY ? -INFINITY : weights.top + floor / weights.inverse;
        chosen = choose(collect(weights, V, bound), filter, sums.tempered, floor, weights, draft);
      }
    }
    token[m] = chosen;
    logprob[m] = chosen < 0 ? NAN : logprob_of(row[chosen]);
  });
}

// Set logits [M, V] (V % 16 == 0) to minus infinity where bit v % 32 of word v / 32 of masks [M, ceil(V / 32)] is 0.
void mlt_apply_mask(float* logits, int M, int V, const uint32_t* masks) {
  const int words = (V + 31) / 32;
  parallel(M, [&](int m) {
    float* row = logits + static_cast<int64_t>(m) * V;
    const uint32_t* mask = masks + static_cast<int64_t>(m) * words;
    for (int v = 0; v < V; v += 16) {
      const auto allowed = static_cast<__mmask16>(mask[v / 32] >> (v % 32));
      _mm512_mask_storeu_ps(row + v, static_cast<__mmask16>(~allowed), _mm512_set1_ps(-INFINITY));
    }
  });
}

}  // extern "C"

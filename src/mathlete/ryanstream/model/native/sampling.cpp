// Drawing tokens from logits.

#include "common.h"

using namespace mlt;

namespace {

struct Candidate {
  float x;  // (logit - max) / temperature
  int32_t id;
};

}  // namespace

extern "C" {

// Draw one token a row. logits [M, V] (V % 16 == 0); per row: temperature (0 = greedy), top_p, top_k (0 = off),
// min_p, uniform in [0, 1). Tokens are ranked by probability (ties: lower id first); the draw inverts the
// cumulative distribution in that order. Out: token, log-probability and entropy at temperature 1 (nats).
// A row with a NaN, or whose largest logit is infinite, has no distribution: token -1, NaN and NaN.
void mlt_sample(const float* logits, int M, int V, const float* temperature, const float* top_p, const int32_t* top_k,
                const float* min_p, const double* uniform, int32_t* token, float* logprob, float* entropy) {
  parallel(M, [&](int m) {
    const float* row = logits + static_cast<int64_t>(m) * V;
    __m512 peak = _mm512_set1_ps(-INFINITY);
    __mmask16 broken = 0;
    for (int v = 0; v < V; v += 16) {
      const __m512 x = _mm512_loadu_ps(row + v);
      broken |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
      peak = _mm512_max_ps(peak, x);
    }
    const float top = _mm512_reduce_max_ps(peak);
    if (broken || !std::isfinite(top)) {  // no distribution: -1 tells the caller
      token[m] = -1;
      logprob[m] = entropy[m] = NAN;
      return;
    }
    const bool greedy = temperature[m] <= 0;
    const float inverse = greedy ? 1.0f : 1.0f / temperature[m];
    const __m512 vtop = _mm512_set1_ps(top), vinverse = _mm512_set1_ps(inverse);
    double mass = 0, weighted = 0, tempered = 0;
    for (int start = 0; start < V; start += 4096) {  // float sums over short stretches, doubles across them
      const int end = std::min(V, start + 4096);
      __m512 s = _mm512_setzero_ps(), e = s, t = s;
      for (int v = start; v < end; v += 16) {
        const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(row + v), vtop);
        const __m512 p = exp_ps(x);
        s = _mm512_add_ps(s, p);
        e = _mm512_fmadd_ps(p, _mm512_max_ps(x, _mm512_set1_ps(-1e4f)), e);
        t = _mm512_add_ps(t, exp_ps(_mm512_mul_ps(x, vinverse)));
      }
      mass += reduce_add(s);
      weighted += reduce_add(e);
      tempered += reduce_add(t);
    }
    entropy[m] = static_cast<float>(std::max(0.0, std::log(mass) - weighted / mass));
    int32_t chosen = -1;
    if (greedy) {
      for (int v = 0; v < V && chosen < 0; ++v)
        if (row[v] == top) chosen = v;
    }
    bool complete = false;
    for (float floor = -12.0f; chosen < 0 && !complete; floor = -INFINITY) {  // the likely few first, then all
      std::vector<Candidate> kept;
      kept.reserve(256);
      const float bound = floor == -INFINITY ? -INFINITY : top + floor / inverse;
      const __m512 vbound = _mm512_set1_ps(bound);
      for (int v = 0; v < V; v += 16) {
        __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(row + v), vbound, _CMP_GT_OQ);
        for (; mask; mask &= mask - 1) {
          const int id = v + __builtin_ctz(mask);
          kept.push_back({(row[id] - top) * inverse, id});
        }
      }
      std::sort(kept.begin(), kept.end(), [row](const Candidate& a, const Candidate& b) {
        return row[a.id] > row[b.id] || (row[a.id] == row[b.id] && a.id < b.id);
      });
      complete = floor == -INFINITY;
      const size_t limit = top_k[m] > 0 ? static_cast<size_t>(top_k[m]) : static_cast<size_t>(V);
      // how many are in the nucleus, and their mass; enough = no token below the floor can belong to it
      size_t count = 0;
      double kept_mass = 0;
      bool enough = complete;
      for (; count < kept.size(); ++count) {
        const double p = std::exp(static_cast<double>(kept[count].x));
        if (count >= limit || (count > 0 && p < min_p[m]) ||
            (count > 0 && top_p[m] < 1 && kept_mass >= top_p[m] * tempered)) {
          enough = true;
          break;
        }
        kept_mass += p;
      }
      enough = enough || count >= limit || (top_p[m] < 1 && kept_mass >= top_p[m] * tempered) ||
               (min_p[m] > 0 && std::exp(static_cast<double>(floor)) <= min_p[m]);
      const bool unfiltered = !enough && top_p[m] >= 1 && min_p[m] <= 0 && limit >= static_cast<size_t>(V);
      if (!enough && !unfiltered) continue;
      double target = uniform[m] * (unfiltered ? tempered : kept_mass);
      if (unfiltered && target >= kept_mass) continue;  // the draw fell into the tail below the floor
      for (size_t i = 0; i < count; ++i) {
        target -= std::exp(static_cast<double>(kept[i].x));
        chosen = kept[i].id;
        if (target < 0) break;
      }
    }
    token[m] = chosen;
    logprob[m] = static_cast<float>((row[chosen] - top) - std::log(mass));
  });
}

}  // extern "C"

// Activations on their way into a product: RMSNorm and SwiGLU, quantised to int8. And the size of the thread pool.

#include "common.h"

using namespace mlt;

extern "C" {

void mlt_set_threads(int threads) { WorkerPool::get().set_threads(threads); }

// x [M, K] -> q [M, K] int8, scale [M], sum [M].
void mlt_quantize(const float* x, int M, int K, int8_t* q, float* scale, int32_t* sum) {
  parallel(M, [&](int m) {
    sum[m] = quantize_row(x + static_cast<int64_t>(m) * K, K, q + static_cast<int64_t>(m) * K, scale + m);
  });
}

// RMSNorm (Zhang & Sennrich 2019) of x [M, K], then quantised like mlt_quantize.
void mlt_rmsnorm_quantize(const float* x, const float* weight, float eps, int M, int K, int8_t* q, float* scale,
                          int32_t* sum) {
  parallel(M, [&](int m) {
    float* row = scratch(K);
    const float* in = x + static_cast<int64_t>(m) * K;
    __m512 squares = _mm512_setzero_ps();
    for (int k = 0; k < K; k += 16) {
      const __m512 v = _mm512_loadu_ps(in + k);
      squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(reduce_add(squares) / K + eps));
    for (int k = 0; k < K; k += 16)
      _mm512_storeu_ps(row + k,
                       _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(in + k), inverse), _mm512_loadu_ps(weight + k)));
    sum[m] = quantize_row(row, K, q + static_cast<int64_t>(m) * K, scale + m);
  });
}

// SwiGLU: gate_up [M, 2 I] -> silu(gate) * up, quantised: q [M, I].
void mlt_swiglu_quantize(const float* gate_up, int M, int I, int8_t* q, float* scale, int32_t* sum) {
  parallel(M, [&](int m) {
    float* row = scratch(I);
    const float* gate = gate_up + static_cast<int64_t>(m) * 2 * I;
    const float* up = gate + I;
    const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
    for (int i = 0; i < I; i += 16) {
      const __m512 g = _mm512_loadu_ps(gate + i);
      const __m512 small = exp_ps(_mm512_sub_ps(zero, _mm512_abs_ps(g)));  // exp(-|g|), never overflows
      const __mmask16 positive = _mm512_cmp_ps_mask(g, zero, _CMP_GE_OQ);
      const __m512 numerator = _mm512_mask_blend_ps(positive, small, one);
      const __m512 sigmoid = _mm512_div_ps(numerator, _mm512_add_ps(one, small));
      _mm512_storeu_ps(row + i, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid), _mm512_loadu_ps(up + i)));
    }
    sum[m] = quantize_row(row, I, q + static_cast<int64_t>(m) * I, scale + m);
  });
}

}  // extern "C"

// The numbers of the toolkit's generator, ChaCha with 8 rounds (Bernstein 2008), where they are needed. A number
// uniform in [0, 1) is the upper 24 bits of a word of the stream: the same that the host would draw.
//
// A thread makes one block of 16 words; the threads share them, so that neighbours write neighbours. `key`, `stream` and
// `position` (in words) are the state of the generator.

struct Key {
    unsigned words[8];
};

DEVICE unsigned rotate_left(unsigned x, int bits) {
    return x << bits | x >> (32 - bits);
}

DEVICE void quarter_round(unsigned *s, int a, int b, int c, int d) {
    s[a] += s[b];
    s[d] = rotate_left(s[d] ^ s[a], 16);
    s[c] += s[d];
    s[b] = rotate_left(s[b] ^ s[c], 12);
    s[a] += s[b];
    s[d] = rotate_left(s[d] ^ s[a], 8);
    s[c] += s[d];
    s[b] = rotate_left(s[b] ^ s[c], 7);
}

DEVICE void chacha_block(const Key &key, unsigned long long block, unsigned long long stream, unsigned *words) {
    unsigned start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    for (int i = 0; i < 8; i++) {
        start[4 + i] = key.words[i];
    }
    start[12] = (unsigned)block;
    start[13] = (unsigned)(block >> 32);
    start[14] = (unsigned)stream;
    start[15] = (unsigned)(stream >> 32);
    for (int i = 0; i < 16; i++) {
        words[i] = start[i];
    }
    for (int round = 0; round < 4; round++) {
        quarter_round(words, 0, 4, 8, 12);
        quarter_round(words, 1, 5, 9, 13);
        quarter_round(words, 2, 6, 10, 14);
        quarter_round(words, 3, 7, 11, 15);
        quarter_round(words, 0, 5, 10, 15);
        quarter_round(words, 1, 6, 11, 12);
        quarter_round(words, 2, 7, 8, 13);
        quarter_round(words, 3, 4, 9, 14);
    }
    for (int i = 0; i < 16; i++) {
        words[i] += start[i];
    }
}

DEVICE float uniform(unsigned word) {
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}

#define STATE \
    unsigned k0, unsigned k1, unsigned k2, unsigned k3, unsigned k4, unsigned k5, unsigned k6, unsigned k7, \
        unsigned long long stream, unsigned long long position

// Numbers of a block of threads, and the distance of what one thread makes from one word to the next: from thread to
// thread, and from word to word of one thread, they lie in other banks of the memory.
#define NUMBERS (16 * THREADS)
#define APART (THREADS + 1)

// The numbers of this block of threads, and where the first of them stands among all, less than 0 if it is before.
#define DRAW \
    __shared__ float drawn[16 * APART]; \
    unsigned words[16]; \
    Key key = {{k0, k1, k2, k3, k4, k5, k6, k7}}; \
    chacha_block(key, position / 16 + (unsigned long long)element_of_thread(), stream, words); \
    for (int i = 0; i < 16; i++) { \
        drawn[i * APART + threadIdx.x] = uniform(words[i]); \
    } \
    __syncthreads(); \
    long long start = (long long)blockIdx.x * NUMBERS - (long long)(position % 16)

// Number `i` of the block of threads.
#define DRAWN(i) drawn[(i) % 16 * APART + (i) / 16]

KERNEL uniforms(OUT(float) y, long long n, STATE) {
    DRAW;
    for (int i = threadIdx.x; i < NUMBERS; i += THREADS) {
        if (start + i >= 0 && start + i < n) {
            y[start + i] = DRAWN(i);
        }
    }
}

// y = 0 with probability `p`, else `scale` * x.
KERNEL dropout(IN(element) x, OUT(element) y, long long n, STATE, float p, float scale) {
    DRAW;
    for (int i = threadIdx.x; i < NUMBERS; i += THREADS) {
        if (start + i >= 0 && start + i < n) {
            y[start + i] = store(DRAWN(i) < p ? 0.0f : scale * load(x[start + i]));
        }
    }
}

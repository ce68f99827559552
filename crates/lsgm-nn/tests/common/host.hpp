// As much of CUDA as the kernels use, on a host. BLOCK is the number of threads in a block.
//
// The threads of a block take turns: each runs until it ends or comes to a barrier, in another order after each barrier, so that
// a kernel that reads what another thread may not have written yet soon gives another result.
#include <math.h>
#include <string.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#define KERNEL static void
#define DEVICE static inline
#define __shared__ static thread_local

struct Place {
    unsigned x;
};

static thread_local Place threadIdx, blockIdx;

static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

struct Block {
    ucontext_t scheduler;
    std::vector<ucontext_t> threads;
    std::vector<std::vector<char>> stacks;
    std::vector<bool> done;
    void (*body)(void *);
    void *arguments;
};

static thread_local Block *running;

static void thread_body() {
    running->body(running->arguments);
    running->done[threadIdx.x] = true;
    swapcontext(&running->threads[threadIdx.x], &running->scheduler);
}

static void __syncthreads() {
    swapcontext(&running->threads[threadIdx.x], &running->scheduler);
}

// 0, or 1 where some threads have ended and others wait for them.
static int run_block(Block &block) {
    const unsigned count = BLOCK, stack = 32768;
    static thread_local unsigned order = 1;
    block.threads.resize(count);
    block.stacks.resize(count);
    block.done.assign(count, false);
    for (unsigned i = 0; i < count; i++) {
        block.stacks[i].resize(stack);
        getcontext(&block.threads[i]);
        block.threads[i].uc_stack.ss_sp = block.stacks[i].data();
        block.threads[i].uc_stack.ss_size = stack;
        block.threads[i].uc_link = nullptr;
        makecontext(&block.threads[i], thread_body, 0);
    }
    running = &block;
    for (;;) {
        order = order * 1664525u + 1013904223u;
        unsigned start = order >> 24, step = order >> 16 & 254u | 1u, ended = 0;
        for (unsigned i = 0; i < count; i++) {
            threadIdx.x = (start + i * step) % count;
            swapcontext(&block.scheduler, &block.threads[threadIdx.x]);
            ended += block.done[threadIdx.x];
        }
        if (ended == count) {
            return 0;
        }
        if (ended > 0) {
            return 1;
        }
    }
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(A *)arguments[I]...);
}

template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;

    static void run(void *self) {
        call(((Call *)self)->kernel, ((Call *)self)->arguments, std::index_sequence_for<A...>());
    }
};

// 0, or what `run_block` says, or 2 where the number of arguments is wrong.
template <class... A> static int launch(void (*kernel)(A...), void **arguments, unsigned count, unsigned blocks) {
    if (count != sizeof...(A)) {
        return 2;
    }
    static thread_local Block block;
    Call<A...> whole = {kernel, arguments};
    block.body = Call<A...>::run;
    block.arguments = &whole;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        if (int fault = run_block(block)) {
            return fault;
        }
    }
    return 0;
}

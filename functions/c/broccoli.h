/* Task ABI v1 for C: everything a module needs, in one header. See docs/task-abi.md.
 *
 * Include it in exactly one source file of a module. It owns the memory allocator, the imports,
 * a CBOR reader for the arguments and a writer for the result. The node checks arguments against
 * the types of BROCCOLI_TASK_n before the call, so reading them cannot fail.
 *
 *     static bc_result add(bc_reader *args) {
 *         int64_t x = bc_read_int(args), y = bc_read_int(args);
 *         bc_writer out = bc_result_begin();
 *         bc_write_int(&out, x + y);
 *         return bc_ok(&out);
 *     }
 *     BROCCOLI_TASK_2(add, "x", "i64", "y", "i64", "i64", "Adds up.")
 */
#ifndef BROCCOLI_H
#define BROCCOLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BC_IMPORT(name) __attribute__((import_module("broccoli"), import_name(name)))
#define BC_EXPORT(name) __attribute__((export_name(name), visibility("default")))

/* ---- Imports: only those that are called end up in the module. ---- */

/* Ends the call with a text. Does not return. */
BC_IMPORT("panic") void bc_import_panic(const char *text, size_t len, uint32_t line);
/* One line of UTF-8 text for whoever watches the task. */
BC_IMPORT("log") void bc_log(const char *text, size_t len);
/* Milliseconds since 1970, or since the node started if it has no clock. */
BC_IMPORT("now_ms") int64_t bc_now_ms(void);
/* 64 random bits, not for secrets. */
BC_IMPORT("random") uint64_t bc_random(void);
/* Suspends the task without using the CPU. */
BC_IMPORT("sleep_ms") void bc_sleep_ms(uint32_t ms);
/* How far the task is; total is 0 if it does not know. As often as you like. */
BC_IMPORT("progress") void bc_progress(uint32_t done, uint32_t total);
/* Puts a canvas into the queue of this node: 0, or one of BC_QUEUE_FULL and so on. See bc_submit. */
BC_IMPORT("submit") int64_t bc_import_submit(const void *canvas, size_t len);
/* Has the board of this node do something. See bc_led and so on. */
BC_IMPORT("board") int64_t bc_import_board(uint32_t code, uint32_t a, uint32_t b, void *room, size_t room_len);

#define BC_PANIC(text) bc_panic(text, sizeof(text) - 1, __LINE__)

__attribute__((noreturn, unused)) static void bc_panic(const char *text, size_t len, uint32_t line) {
    bc_import_panic(text, len, line);
    __builtin_trap();
}

/* ---- Memory: grows upwards during a call; nothing is freed before the reset. ---- */

extern unsigned char __heap_base;
extern unsigned char __heap_end;

static uintptr_t bc_heap_top, bc_heap_end, bc_page_size;

/* len bytes, 8-aligned. Traps when out of memory. */
BC_EXPORT("broccoli_alloc") void *bc_alloc(size_t len) {
    if (bc_heap_top == 0) {
        bc_heap_top = (uintptr_t)&__heap_base;
        bc_heap_end = (uintptr_t)&__heap_end;
        bc_page_size = __builtin_wasm_memory_size(0) == bc_heap_end ? 1 : 65536;
    }
    uintptr_t start = (bc_heap_top + 7) & ~(uintptr_t)7;
    if (len > UINT32_MAX - start) __builtin_trap();
    uintptr_t top = start + len;
    if (top > bc_heap_end) {
        size_t pages = (top - bc_heap_end) / bc_page_size + 1;
        if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) __builtin_trap();
        bc_heap_end += pages * bc_page_size;
    }
    bc_heap_top = top;
    return (void *)start;
}

BC_EXPORT("broccoli_reset") void bc_reset(void) { bc_heap_top = 0; }

/* ---- Reading arguments, in order. ---- */

typedef struct {
    const uint8_t *at;
} bc_reader;

typedef struct {
    const uint8_t *data; /* not terminated by 0 */
    size_t len;
} bc_slice;

__attribute__((unused)) static uint64_t bc_read_head(bc_reader *r) {
    uint8_t info = *r->at++ & 0x1f;
    if (info < 24) return info;
    uint64_t n = 0;
    for (int i = 0; i < 1 << (info - 24); i++) n = n << 8 | *r->at++;
    return n;
}

/* 0 integer, 1 negative integer, 2 bytes, 3 text, 4 list, 5 map, 6 tag, 7 the rest */
__attribute__((unused)) static int bc_peek_kind(const bc_reader *r) { return *r->at >> 5; }

/* i8 to i64, u8 to u32; u64 by a cast. */
__attribute__((unused)) static int64_t bc_read_int(bc_reader *r) {
    bool negative = bc_peek_kind(r) == 1;
    uint64_t n = bc_read_head(r);
    return (int64_t)(negative ? ~n : n);
}

/* f32, f64 and num; integers, too. */
__attribute__((unused)) static double bc_read_float(bc_reader *r) {
    if (bc_peek_kind(r) != 7) return (double)bc_read_int(r);
    int width = *r->at & 0x1f;
    uint64_t bits = bc_read_head(r);
    if (width == 27) return (union { uint64_t u; double f; }){bits}.f;
    if (width == 26) return (double)(union { uint32_t u; float f; }){(uint32_t)bits}.f;
    double size = (double)(bits & 0x3ff); /* a half: subnormal, or 1.fraction, or special */
    int exponent = bits >> 10 & 0x1f;
    if (exponent == 31) size = size != 0 ? __builtin_nan("") : __builtin_inf();
    else if (exponent == 0) size /= 16777216.0;
    else for (size = 1 + size / 1024; exponent != 15; exponent += exponent < 15 ? 1 : -1)
        size = exponent < 15 ? size / 2 : size * 2;
    return bits >> 15 ? -size : size;
}

__attribute__((unused)) static bool bc_read_bool(bc_reader *r) { return *r->at++ == 0xf5; }

/* For ?T: takes the null, if there is one. */
__attribute__((unused)) static bool bc_read_null(bc_reader *r) {
    bool found = *r->at == 0xf6;
    r->at += found;
    return found;
}

/* str and bytes; not copied. */
__attribute__((unused)) static bc_slice bc_read_str(bc_reader *r) {
    size_t len = (size_t)bc_read_head(r);
    bc_slice text = {r->at, len};
    r->at += len;
    return text;
}

/* [T] and (A,B): how many items follow. */
__attribute__((unused)) static size_t bc_read_list(bc_reader *r) { return (size_t)bc_read_head(r); }

/* {T}: how many pairs of key and value follow. */
__attribute__((unused)) static size_t bc_read_map(bc_reader *r) { return (size_t)bc_read_head(r); }

/* any: moves past one whole item and gives its bytes. */
__attribute__((unused)) static bc_slice bc_read_any(bc_reader *r) {
    const uint8_t *start = r->at;
    for (uint64_t missing = 1; missing > 0; missing--) {
        int kind = bc_peek_kind(r);
        uint64_t n = bc_read_head(r);
        if (kind == 2 || kind == 3) r->at += n;
        if (kind == 4) missing += n;
        if (kind == 5) missing += 2 * n;
        if (kind == 6) missing += 1;
    }
    return (bc_slice){start, (size_t)(r->at - start)};
}

/* ---- Writing the result: exactly one item. ---- */

typedef struct {
    uint8_t *data;
    size_t len, room;
} bc_writer;

typedef int64_t bc_result;

__attribute__((unused)) static bc_writer bc_result_begin(void) { return (bc_writer){NULL, 0, 0}; }

__attribute__((unused)) static void bc_write_raw(bc_writer *w, const void *bytes, size_t len) {
    if (w->room - w->len < len) {
        size_t room = 2 * w->room + len + 16;
        uint8_t *data = bc_alloc(room);
        if (w->len > 0) __builtin_memcpy(data, w->data, w->len);
        w->data = data;
        w->room = room;
    }
    if (len > 0) __builtin_memcpy(w->data + w->len, bytes, len);
    w->len += len;
}

__attribute__((unused)) static void bc_write_head(bc_writer *w, int kind, uint64_t n) {
    uint8_t bytes[9];
    int width = n < 24 ? 0 : n <= 0xff ? 1 : n <= 0xffff ? 2 : n <= 0xffffffff ? 4 : 8;
    static const uint8_t info[9] = {[1] = 24, [2] = 25, [4] = 26, [8] = 27};
    bytes[0] = (uint8_t)(kind << 5 | (width == 0 ? (int)n : info[width]));
    for (int i = 0; i < width; i++) bytes[1 + i] = (uint8_t)(n >> 8 * (width - 1 - i));
    bc_write_raw(w, bytes, 1 + (size_t)width);
}

__attribute__((unused)) static void bc_write_int(bc_writer *w, int64_t n) {
    bc_write_head(w, n < 0, n < 0 ? ~(uint64_t)n : (uint64_t)n);
}
__attribute__((unused)) static void bc_write_uint(bc_writer *w, uint64_t n) { bc_write_head(w, 0, n); }
__attribute__((unused)) static void bc_write_float(bc_writer *w, double x) {
    uint64_t bits = (union { double f; uint64_t u; }){x}.u;
    uint8_t bytes[9] = {0xfb};
    for (int i = 0; i < 8; i++) bytes[1 + i] = (uint8_t)(bits >> 8 * (7 - i));
    bc_write_raw(w, bytes, 9);
}
__attribute__((unused)) static void bc_write_bool(bc_writer *w, bool b) { bc_write_raw(w, b ? "\xf5" : "\xf4", 1); }
__attribute__((unused)) static void bc_write_null(bc_writer *w) { bc_write_raw(w, "\xf6", 1); }
__attribute__((unused)) static void bc_write_str(bc_writer *w, const void *text, size_t len) {
    bc_write_head(w, 3, len);
    bc_write_raw(w, text, len);
}
__attribute__((unused)) static void bc_write_bytes(bc_writer *w, const void *bytes, size_t len) {
    bc_write_head(w, 2, len);
    bc_write_raw(w, bytes, len);
}
/* len items follow. */
__attribute__((unused)) static void bc_write_list(bc_writer *w, size_t len) { bc_write_head(w, 4, len); }
/* len pairs follow: a text, then a value. */
__attribute__((unused)) static void bc_write_map(bc_writer *w, size_t len) { bc_write_head(w, 5, len); }

__attribute__((unused)) static bc_result bc_pack(const bc_writer *w, bool err) {
    return (int64_t)((uint64_t)(uintptr_t)w->data << 32 | (uint64_t)err << 31 | w->len);
}
/* Returns what was written. */
__attribute__((unused)) static bc_result bc_ok(const bc_writer *w) { return bc_pack(w, false); }
/* Returns an error instead; the type of the result must begin with `!`. */
__attribute__((unused)) static bc_result bc_error(const char *text, size_t len) {
    bc_writer w = bc_result_begin();
    bc_write_str(&w, text, len);
    return bc_pack(&w, true);
}
#define BC_ERROR(text) bc_error(text, sizeof(text) - 1)
/* Returns an error, and asks to be tried again after a pause. */
__attribute__((unused)) static bc_result bc_retry(const char *text, size_t len, uint64_t after_ms) {
    bc_writer w = bc_result_begin();
    bc_write_list(&w, 2);
    bc_write_str(&w, text, len);
    bc_write_uint(&w, after_ms);
    return bc_pack(&w, true);
}
#define BC_RETRY(text, after_ms) bc_retry(text, sizeof(text) - 1, after_ms)

/* ---- The board of this node: its LED, its pins, what it measures. ---- */

enum { BC_BOARD_TEXT_MAX = 160 };

/* What a board answers: value if it is ok, else the reason, not terminated by 0. */
typedef struct {
    bool ok;
    int32_t value;
    size_t len;
    char text[BC_BOARD_TEXT_MAX];
} bc_board;

__attribute__((unused)) static bc_board bc_board_call(uint32_t code, uint32_t a, uint32_t b) {
    bc_board answer = {0};
    int64_t packed = bc_import_board(code, a, b, answer.text, sizeof answer.text);
    answer.ok = (packed >> 32 & 1) == 0;
    if (answer.ok) answer.value = (int32_t)packed;
    else answer.len = (uint32_t)packed;
    return answer;
}

/* Switches the LED. */
__attribute__((unused)) static bc_board bc_led(bool on) { return bc_board_call(1, on, 0); }
/* value 1: the pin is high. It stays what it is, input or output. */
__attribute__((unused)) static bc_board bc_gpio_read(uint16_t pin) { return bc_board_call(2, pin, 0); }
/* Makes a pin an output, and high or low. */
__attribute__((unused)) static bc_board bc_gpio_write(uint16_t pin, bool high) { return bc_board_call(3, pin, high); }
/* value: millivolts. */
__attribute__((unused)) static bc_board bc_adc_read(uint8_t channel) { return bc_board_call(4, channel, 0); }
/* value: thousandths of a degree Celsius. */
__attribute__((unused)) static bc_board bc_temperature(void) { return bc_board_call(5, 0, 0); }

/* Fails the task with the reason of the board: if (!answer.ok) return BC_BOARD_ERROR(answer); */
#define BC_BOARD_ERROR(answer) bc_error((answer).text, (answer).len)

/* ---- Canvases: what a task submits, or returns to be replaced by it. ---- */

enum { BC_QUEUE_FULL = -1, BC_BAD_CANVAS = -2, BC_NO_JOBS = -3 };

/* A call of a function with a list of arguments: bc_write_list, then each. For other canvases write
 * what docs/wire.md says. */
__attribute__((unused)) static void bc_write_call(bc_writer *w, const char *function, size_t len,
                                                  const bc_writer *args) {
    bc_write_list(w, 4);
    bc_write_list(w, 2); /* the form: number 0, a task */
    bc_write_int(w, 0);
    bc_write_list(w, 1);
    bc_write_list(w, 4);
    bc_write_str(w, function, len);
    bc_write_bytes(w, args->data, args->len);
    bc_write_list(w, 0); /* arguments by name */
    bc_write_bool(w, false);
    bc_write_map(w, 1); /* options; number 4 lists the nodes to run on */
    bc_write_int(w, 4);
    bc_write_list(w, 0);
    bc_write_list(w, 0); /* callbacks */
    bc_write_list(w, 0);
}
#define BC_WRITE_CALL(w, function, args) bc_write_call(w, function, sizeof(function) - 1, args)

/* Before the canvas that a task returns to be replaced by it. */
__attribute__((unused)) static void bc_write_replacement(bc_writer *w) { bc_write_head(w, 6, 0x42524f43); }

/* Puts what was written into the queue of this node; 0, or why not. */
__attribute__((unused)) static int64_t bc_submit(const bc_writer *w) { return bc_import_submit(w->data, w->len); }

/* ---- Tasks: an export each, and a description in a custom section. ---- */

/* BROCCOLI_TASK_<n>(function, name and type of each of n arguments, type of the result, doc)
 * defines the task `function`, which is `static bc_result function(bc_reader *args)`. All but the
 * function are string literals of at most 255 bytes without quotes and backslashes. A task reads
 * its arguments in order. */
#define BROCCOLI_TASK_0(fn, ret, doc) BC_TASK(fn, "0x80", "", ret, doc)
#define BROCCOLI_TASK_1(fn, a, at, ret, doc) BC_TASK(fn, "0x81", BC_ARG(a, at), ret, doc)
#define BROCCOLI_TASK_2(fn, a, at, b, bt, ret, doc) \
    BC_TASK(fn, "0x82", BC_ARG(a, at) BC_ARG(b, bt), ret, doc)
#define BROCCOLI_TASK_3(fn, a, at, b, bt, c, ct, ret, doc) \
    BC_TASK(fn, "0x83", BC_ARG(a, at) BC_ARG(b, bt) BC_ARG(c, ct), ret, doc)
#define BROCCOLI_TASK_4(fn, a, at, b, bt, c, ct, d, dt, ret, doc) \
    BC_TASK(fn, "0x84", BC_ARG(a, at) BC_ARG(b, bt) BC_ARG(c, ct) BC_ARG(d, dt), ret, doc)

/* Clang takes custom sections from assembler only. 0x78 heads a text with its length in a byte. */
#define BC_SECTION(name, content) \
    __asm__(".section .custom_section." name ",\"\",@\n" content ".text\n");
#define BC_BYTE(byte) ".byte " byte "\n"
#define BC_TEXT(text) ".byte 0x78, 9f - 8f\n8: .ascii \"" text "\"\n9:\n"
#define BC_ARG(name, type) BC_BYTE("0x82") BC_TEXT(name) BC_TEXT(type)

/* The description is [name, [[arg, type]...], ret, doc]. */
#define BC_TASK(fn, list, args, ret, doc)                                           \
    BC_SECTION("broccoli.tasks", BC_BYTE("0x84") BC_TEXT(#fn) BC_BYTE(list) args    \
                                     BC_TEXT(ret) BC_TEXT(doc))                     \
    BC_EXPORT("task_" #fn) bc_result bc_task_##fn(const uint8_t *ptr, size_t len) { \
        (void)len;                                                                  \
        bc_reader reader = {ptr};                                                   \
        bc_read_list(&reader);                                                      \
        return fn(&reader);                                                         \
    }

BC_SECTION("broccoli.abi", BC_BYTE("0x01"))

#endif

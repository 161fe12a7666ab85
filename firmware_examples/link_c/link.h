/* The caller's end of the link (docs/link.md): a reliable stream of bytes over a serial line, for boards.
 * No heap, no clock, no operating system: one struct, and times in milliseconds that may wrap.
 * Never call two of these functions at the same time. */
#ifndef LINK_H
#define LINK_H
#include <stddef.h>
#include <stdint.h>

#ifndef LINK_FRAME
#define LINK_FRAME 128 /* the largest frame, 64..1024 bytes; its payload has 10 less */
#endif
#ifndef LINK_WINDOW
#define LINK_WINDOW 4 /* frames on their way in each direction: 1, 2, 4, 8, 16, 32 or 64 */
#endif

enum link_state { LINK_CALLING, LINK_OPEN, LINK_ENDED };
/* Reasons for the end: 0..9 as in a CLOSE, and two of its own. */
enum { LINK_DONE, LINK_VERSION = 3, LINK_TERMS, LINK_VIOLATION = 6, LINK_STALLED, LINK_SILENT = 254, LINK_RESTARTED };

struct link_sent { /* a frame until it is acknowledged */
    uint32_t due;
    uint16_t length, order; /* order: which transmission was its last, 0: none yet */
    uint8_t now, held;      /* to be sent now; the peer has it, beyond a gap */
    uint8_t data[LINK_FRAME - 10];
};
struct link_kept { /* a frame that came, until it is read; length 0: none */
    uint16_t length;
    uint8_t data[LINK_FRAME - 10];
};
struct link {
    void (*put)(void *user, uint8_t byte);
    void *user;
    uint32_t baud, nonce, hello_at, heard_at, sent_at, free_at, ack_at, progress_at;
    uint16_t frame, epoch, orders, offset, in_length;
    uint8_t state, reason, closing, window;
    uint8_t base, waiting, credit, doublings;                       /* sending */
    uint8_t taken, expected, announced, unacked, ack_now, ack_due;  /* receiving */
    uint8_t in_code, in_left, in_bad, in[LINK_FRAME];               /* the frame that is coming in */
    struct link_sent sent[LINK_WINDOW];
    struct link_kept kept[LINK_WINDOW];
};

/* Begin to call. put writes a byte to the line, and waits for room. nonce: random, or any number after a
 * silence on the line (docs/link.md, Beginning). The peer has the stream when state is LINK_OPEN. */
void link_init(struct link *l, uint32_t baud, uint32_t nonce, uint32_t now, void (*put)(void *, uint8_t), void *user);
/* Take a byte from the line. */
void link_input(struct link *l, uint8_t byte, uint32_t now);
/* Do what is due and send at most one frame; returns 1 if it sent one: call it again then. */
int link_poll(struct link *l, uint32_t now);
/* Take up to n bytes for the peer; returns how many there was room for. link_poll sends them. */
size_t link_send(struct link *l, const uint8_t *data, size_t n, uint32_t now);
/* Read up to n bytes that came; returns how many. What came before the end can be read after it. */
size_t link_read(struct link *l, uint8_t *data, size_t n);
/* End the stream by a CLOSE, which link_poll sends; what is not acknowledged is left. */
void link_close(struct link *l, uint8_t reason);
#endif

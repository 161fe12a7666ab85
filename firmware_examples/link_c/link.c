/* See link.h; the headings are those of docs/link.md. */
#include "link.h"
#include <string.h>

enum { HELLO = 1, WELCOME, DATA, ACK, CLOSE, VERSION = 1, HEADER = 6, CRC = 4, NOT_CLOSING = 255 };

/* Times, rounded up to milliseconds. */
static int due(uint32_t now, uint32_t at) { return (int32_t)(now - at) >= 0; }
static uint32_t bytes_ms(const struct link *l, size_t n) { return ((uint32_t)n * 10000u + l->baud - 1) / l->baud; }
static uint32_t frame_ms(const struct link *l) { return bytes_ms(l, l->frame + l->frame / 254u + 3u); }
static uint32_t answer_ms(const struct link *l) { return (100 + 4 * frame_ms(l)) << l->doublings; }
static uint32_t heartbeat_ms(const struct link *l) { return frame_ms(l) > 250 ? 4 * frame_ms(l) : 1000; }

/* Frame */
static uint32_t crc_of(uint32_t crc, const uint8_t *data, size_t n) {
    for (; n; n--) {
        crc ^= *data++;
        for (uint8_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0u);
    }
    return crc;
}

static void store(uint8_t *to, uint32_t value, uint8_t bytes) {
    for (; bytes; bytes--, value >>= 8)
        *to++ = (uint8_t)value;
}

static uint32_t load(const uint8_t *from, uint8_t bytes) {
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | from[bytes];
    return value;
}

/* A frame that goes out: its parts are never in one place. */
struct parts {
    uint8_t header[HEADER], crc[CRC];
    const uint8_t *payload;
    size_t length;
};

static uint8_t byte_at(const struct parts *p, size_t i) {
    if (i < HEADER)
        return p->header[i];
    return i - HEADER < p->length ? p->payload[i - HEADER] : p->crc[i - HEADER - p->length];
}

static uint8_t room(const struct link *l) { return (uint8_t)(l->window - (uint8_t)(l->expected - l->taken)); }

static void send_frame(struct link *l, uint8_t kind, uint8_t seq, const uint8_t *payload, size_t length, uint32_t now) {
    struct parts p = {{kind, 0, 0, seq, l->expected, room(l)}, {0}, payload, length};
    size_t total = HEADER + length + CRC, i = 0, run, put = 2;
    store(p.header + 1, l->epoch, 2);
    store(p.crc, ~crc_of(crc_of(0xFFFFFFFFu, p.header, HEADER), payload, length), CRC);
    l->put(l->user, 0);
    do { /* COBS: runs without a zero, their length + 1 before them */
        for (run = 0; run < 254 && i + run < total && byte_at(&p, i + run); run++)
            ;
        l->put(l->user, (uint8_t)(run + 1));
        for (put += run + 1; run; run--)
            l->put(l->user, byte_at(&p, i++));
        if (i < total && !byte_at(&p, i) && ++i == total) { /* a zero is the last byte */
            l->put(l->user, 1);
            put++;
        }
    } while (i < total);
    l->put(l->user, 0);
    l->announced = room(l);
    l->ack_due = l->unacked = 0;
    l->sent_at = now;
    l->free_at = (due(now, l->free_at) ? now : l->free_at) + bytes_ms(l, put);
}

/* DATA and ACK: sender */
static struct link_sent *sent_of(struct link *l, uint8_t i) { return &l->sent[(uint8_t)(l->base + i) % LINK_WINDOW]; }

static void acknowledge(struct link *l, const uint8_t *bitmap, size_t length, uint32_t now) {
    uint8_t count = (uint8_t)(l->in[4] - l->base), i;
    uint16_t latest = 0;
    if (count > l->waiting || (count && !sent_of(l, (uint8_t)(count - 1))->order))
        return;
    for (i = 0; i < l->waiting; i++) {
        struct link_sent *s = sent_of(l, i);
        uint8_t bit = (uint8_t)(i - count - 1);
        if (i >= count && (i == count || bit / 8 >= length || !(bitmap[bit / 8] >> bit % 8 & 1)))
            continue;
        if (s->order && !s->held && (!latest || (int16_t)(s->order - latest) > 0))
            latest = s->order;
        s->held = s->order != 0;
    }
    l->base = l->in[4];
    l->waiting = (uint8_t)(l->waiting - count);
    l->credit = l->in[5];
    if (!latest && !count)
        return;
    l->progress_at = now;
    l->doublings = 0;
    for (i = 0; i < l->waiting; i++) { /* the line keeps the order: what was sent before is lost */
        struct link_sent *s = sent_of(l, i);
        if (latest && s->order && (int16_t)(s->order - latest) < 0)
            s->now = 1;
    }
}

static void expire(struct link *l, uint32_t now) {
    uint8_t i, late = 0;
    for (i = 0; i < l->waiting; i++)
        late |= !sent_of(l, i)->now && !sent_of(l, i)->held && due(now, sent_of(l, i)->due);
    if (!late)
        return;
    if (l->doublings < 3)
        l->doublings++;
    sent_of(l, 0)->now = 1;
    for (i = 0; i < l->waiting; i++)
        if (due(now + answer_ms(l), sent_of(l, i)->due))
            sent_of(l, i)->due = now + answer_ms(l);
}

size_t link_send(struct link *l, const uint8_t *data, size_t n, uint32_t now) {
    size_t taken = 0, size = l->frame - 10u;
    if (l->state != LINK_OPEN || l->closing != NOT_CLOSING)
        return 0;
    while (taken < n && l->waiting < l->window && l->waiting < l->credit) {
        struct link_sent *s = sent_of(l, l->waiting);
        if (!l->waiting++)
            l->progress_at = now;
        s->length = (uint16_t)(n - taken < size ? n - taken : size);
        s->order = s->held = 0;
        s->now = 1;
        memcpy(s->data, data + taken, s->length);
        taken += s->length;
    }
    return taken;
}

/* DATA and ACK: receiver */
static void take_data(struct link *l, const uint8_t *payload, size_t length, uint32_t now) {
    uint8_t ahead = (uint8_t)(l->in[3] - l->expected), filled = 0;
    struct link_kept *k = &l->kept[l->in[3] % LINK_WINDOW];
    if (length == 0 || length > l->frame - 10u) {
        l->closing = LINK_VIOLATION;
        return;
    }
    if (ahead || room(l) == 0)
        l->ack_now = 1; /* a repeat, or those between are lost */
    if (ahead >= room(l) || k->length) {
        l->ack_now = 1;
        return;
    }
    memcpy(k->data, payload, length);
    k->length = (uint16_t)length;
    for (; room(l) && l->kept[l->expected % LINK_WINDOW].length; l->expected++, l->unacked++)
        filled++;
    if (filled > 1 || l->unacked * 2 >= l->window)
        l->ack_now = 1;
    else if (filled && !l->ack_due) {
        l->ack_due = 1;
        l->ack_at = now + (frame_ms(l) < 100 ? frame_ms(l) : 100);
    }
}

size_t link_read(struct link *l, uint8_t *data, size_t n) {
    size_t got = 0, part;
    while (got < n && l->taken != l->expected) {
        struct link_kept *k = &l->kept[l->taken % LINK_WINDOW];
        part = (size_t)k->length - l->offset;
        part = part < n - got ? part : n - got;
        memcpy(data + got, k->data + l->offset, part);
        got += part;
        l->offset = (uint16_t)(l->offset + part);
        if (l->offset == k->length) {
            k->length = l->offset = 0;
            l->taken++;
        }
    }
    if (got && l->announced * 2 <= l->window)
        l->ack_now = 1;
    return got;
}

static void send_ack(struct link *l, uint32_t now) {
    uint8_t bitmap[LINK_WINDOW / 8 + 1] = {0}, length = 0, i;
    for (i = 0; i + 1 < room(l); i++)
        if (l->kept[(uint8_t)(l->expected + 1 + i) % LINK_WINDOW].length) {
            bitmap[i / 8] |= (uint8_t)(1 << i % 8);
            length = (uint8_t)(i / 8 + 1);
        }
    l->ack_now = 0;
    send_frame(l, ACK, (uint8_t)(l->base + l->waiting), bitmap, length, now);
}

/* Beginning and CLOSE */
static void end(struct link *l, uint8_t reason) {
    l->state = LINK_ENDED;
    l->reason = reason;
}

static void take_welcome(struct link *l, const uint8_t *p, size_t length, uint32_t now) {
    uint16_t frame = (uint16_t)load(p + 2, 2), epoch = (uint16_t)load(l->in + 1, 2);
    if (length < 9 || load(p + 5, 4) != l->nonce)
        return;
    if (l->state == LINK_OPEN) {
        if (epoch != l->epoch)
            end(l, LINK_RESTARTED);
    } else if (p[0] != VERSION)
        end(l, LINK_VERSION);
    else if (frame < 64 || frame > LINK_FRAME || p[4] < 1 || p[4] > LINK_WINDOW)
        end(l, LINK_TERMS);
    else {
        l->state = LINK_OPEN;
        l->epoch = epoch;
        l->frame = frame;
        l->window = l->credit = p[4];
        l->ack_now = 1;
        l->heard_at = now;
    }
}

static void take_frame(struct link *l, uint32_t now) {
    const uint8_t *p = l->in + HEADER;
    size_t length = l->in_length - (size_t)(HEADER + CRC);
    uint8_t kind = l->in[0];
    if (kind == WELCOME && l->state != LINK_ENDED)
        take_welcome(l, p, length, now);
    else if (l->state == LINK_CALLING && kind == CLOSE && length >= 6 && load(p + 2, 4) == l->nonce)
        end(l, p[0]);
    else if (l->state == LINK_OPEN && kind >= DATA && kind <= CLOSE && load(l->in + 1, 2) == l->epoch) {
        l->heard_at = now;
        acknowledge(l, p, kind == ACK ? length : 0, now);
        if (kind == DATA)
            take_data(l, p, length, now);
        else if (kind == CLOSE)
            end(l, length ? p[0] : LINK_DONE);
    }
}

static void push(struct link *l, uint8_t byte) {
    if (l->in_length == LINK_FRAME)
        l->in_bad = 1;
    else
        l->in[l->in_length++] = byte;
}

void link_input(struct link *l, uint8_t byte, uint32_t now) {
    if (byte == 0) {
        size_t body = l->in_length - (size_t)CRC;
        if (!l->in_bad && !l->in_left && l->in_length >= HEADER + CRC
            && load(l->in + body, CRC) == (uint32_t)~crc_of(0xFFFFFFFFu, l->in, body))
            take_frame(l, now);
        l->in_code = 255; /* no zero is before the first block */
        l->in_length = l->in_left = l->in_bad = 0;
    } else if (l->in_left) {
        push(l, byte);
        l->in_left--;
    } else {
        if (l->in_code != 255)
            push(l, 0);
        l->in_code = byte;
        l->in_left = (uint8_t)(byte - 1);
    }
}

void link_init(struct link *l, uint32_t baud, uint32_t nonce, uint32_t now, void (*put)(void *, uint8_t), void *user) {
    memset(l, 0, sizeof *l);
    l->put = put;
    l->user = user;
    l->baud = baud;
    l->nonce = nonce;
    l->hello_at = l->free_at = now;
    l->closing = NOT_CLOSING;
    l->in_code = 255;
    l->frame = LINK_FRAME;
}

void link_close(struct link *l, uint8_t reason) {
    if (l->state == LINK_OPEN)
        l->closing = reason;
}

static int call(struct link *l, uint32_t now) {
    uint8_t hello[9] = {VERSION, 0, LINK_FRAME & 255, LINK_FRAME >> 8, LINK_WINDOW};
    if (!due(now, l->hello_at))
        return 0;
    store(hello + 5, l->nonce, 4);
    send_frame(l, HELLO, 0, hello, sizeof hello, now);
    l->hello_at = now + 200 + bytes_ms(l, 176);
    return 1;
}

int link_poll(struct link *l, uint32_t now) {
    if (l->state == LINK_CALLING)
        return call(l, now);
    if (l->state == LINK_OPEN && due(now, l->heard_at + 4 * heartbeat_ms(l)))
        end(l, LINK_SILENT);
    if (l->state == LINK_ENDED)
        return 0;
    if (l->waiting && due(now, l->progress_at + 32 * heartbeat_ms(l)))
        l->closing = LINK_STALLED;
    if (l->closing != NOT_CLOSING) {
        uint8_t last[2] = {l->closing, VERSION};
        send_frame(l, CLOSE, (uint8_t)(l->base + l->waiting), last, sizeof last, now);
        end(l, l->closing);
        return 1;
    }
    expire(l, now);
    for (uint8_t i = 0; !l->ack_now && i < l->waiting; i++) {
        struct link_sent *s = sent_of(l, i);
        if (!s->now || s->held)
            continue;
        send_frame(l, DATA, (uint8_t)(l->base + i), s->data, s->length, now);
        s->order = l->orders = (uint16_t)(l->orders == 65535 ? 1 : l->orders + 1);
        s->due = l->free_at + answer_ms(l);
        s->now = 0;
        return 1;
    }
    if (!l->ack_now && !(l->ack_due && due(now, l->ack_at)) && !due(now, l->sent_at + heartbeat_ms(l)))
        return 0;
    send_ack(l, now);
    return 1;
}

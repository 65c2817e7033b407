// SPDX-License-Identifier: Apache-2.0
/*
 * A module of Envoy's: how a request is denied, and how many are not.  Envoy itself can only
 * answer; no other filter of 1.40 ends a stream without a reply.
 *
 * A route carries a text: `reset` or `answer`, then the names of headers that a request must not
 * have twice (servers take the one or the other), with a space between; with `!` before the name,
 * not even once (some servers take `_` for `-`).  Else it is denied with 403.  Where the text says
 * `reset`, a 403 that Envoy is about to send of itself is not sent: the stream is reset, that is,
 * HTTP/1's connection is closed.  A 403 of the server passes, for it is no local reply.  What has
 * no route is no request that rules could judge (malformed, `OPTIONS *`); it gets no answer either.
 *
 * A word `=` says that what has this text is denied.  Envoy would close HTTP/1's connection behind
 * a 403 whose request has not come whole; the client, still sending, may then never see it.  So the
 * rest of such a request is taken and dropped, and the 403 follows it.
 *
 * Where the server ends its connection instead of answering a request of HTTP/1, the client's ends
 * as it would without Envoy, who would say 503: clients send again what may be sent again.
 *
 * X-Forwarded-Proto, which Envoy makes up, reaches the server only if the client has sent it.
 *
 * A word `?` denies a request of HTTP/1.0 without a Host.  Envoy has made one up for it (NO_HOST),
 * which no server may see: where such a request passes, its Host is the address that was asked.
 *
 * A second line of the text says what a request counts as that is let through: `ingress ` or
 * `egress `, and the rule.  The counters are in a file that the loader reads (counts.py), so they
 * outlive this process, and a request costs one addition.
 *
 * Envoy's ABI for modules is bound to its version, which the loader checks.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ABI_VERSION "v0.2.0" /* of Envoy 1.40 */
#define EXPORT	    __attribute__((visibility("default")))
#define NO_HOST	    "!"		    /* as in routes.py; the kernel engine takes no such Host */
#define SENT	    "x-envoy-sent-" /* as in routes.py: before the name of a header that was sent */

enum { CONTINUE = 0, STOP = 1, RESET = 1, DROP = 3 };
enum { REQUEST_HEADER = 0 };
enum { REQUEST_PROTOCOL = 10, DESTINATION_ADDRESS = 26 };
enum { BAD_REQUEST = 400, FORBIDDEN = 403, SERVER_ERROR = 500, UNAVAILABLE = 503 };
#define ENDED "upstream_reset_before_response_started{connection_termination"

#define HELD_MAX 1024 /* pieces of a body; of what is longer the rest is not awaited */

struct text {
	const char *at;
	size_t length;
};

/* What Envoy offers. */
const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *stream);
bool envoy_dynamic_module_callback_http_get_header(void *stream, int kind, struct text name,
						   struct text *value, size_t index, size_t *count);
bool envoy_dynamic_module_callback_http_set_header(void *stream, int kind, struct text name,
						   struct text value);
bool envoy_dynamic_module_callback_http_filter_get_attribute_string(void *stream, int attribute,
								    struct text *value);
void envoy_dynamic_module_callback_http_send_response(void *stream, uint32_t status,
						      const void *headers, size_t header_count,
						      struct text body, struct text details);

/*
 * Counters, in the file that YETT_ALLOWED names; without it, or it cannot be had, nobody reads
 * them.  They are taken from the front.  When all are taken, those that no route has any more go
 * to others, and what they held to the first two: the sums of what has no counter of its own.
 */
enum { COUNTERS = 8192, KEY_MAX = 1008, UNNAMED = 2 };
#define CHANGING UINT64_MAX /* not to be read just now */

struct counter {
	_Atomic uint64_t value;
	_Atomic uint64_t length; /* of the key; 0: was never taken */
	char key[KEY_MAX];
};

static const char *const unnamed[UNNAMED] = {"ingress ", "egress "};
static struct counter *counters;
static uint32_t routes_of[COUNTERS];
static pthread_mutex_t taking = PTHREAD_MUTEX_INITIALIZER;

static bool is_key(const struct counter *counter, const char *key, size_t length)
{
	return counter->length == length && !memcmp(counter->key, key, length);
}

static void name_counter(struct counter *counter, const char *key, size_t length)
{
	counter->length = CHANGING;
	memcpy(counter->key, key, length);
	counter->length = length;
}

static bool open_counters(void)
{
	const size_t size = COUNTERS * sizeof(*counters);
	const char *path = getenv("YETT_ALLOWED");
	void *at = MAP_FAILED;
	int file;

	if (counters)
		return true;
	if (path) {
		file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		/* With all its pages: a write to one that cannot be had later would end Envoy. */
		if (file >= 0 && !(errno = posix_fallocate(file, 0, size)))
			at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		if (file >= 0)
			close(file);
		if (at == MAP_FAILED)
			perror("yett: what is allowed is not counted: YETT_ALLOWED");
	}
	if (at == MAP_FAILED)
		at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return false;
	counters = at;
	for (int i = 0; i < UNNAMED; i++) {
		if (!is_key(&counters[i], unnamed[i], strlen(unnamed[i])))
			name_counter(&counters[i], unnamed[i], strlen(unnamed[i]));
		routes_of[i] = 1;
	}
	return true;
}

/* A number for `key`: its own, a new one, else that of its direction. */
static uint32_t take_counter(const char *key, size_t length)
{
	uint32_t i, spare = 0, rest = *key == *unnamed[0] ? 0 : 1;

	if (length > KEY_MAX)
		return rest;
	pthread_mutex_lock(&taking);
	for (i = UNNAMED; i < COUNTERS && counters[i].length; i++) {
		if (is_key(&counters[i], key, length))
			goto found;
		if (!routes_of[i] && !spare)
			spare = i;
	}
	if (i == COUNTERS)
		i = spare ? spare : rest;
	if (i >= UNNAMED) {
		struct counter *old = &counters[i];
		bool was_egress = old->length && *old->key != *unnamed[0];

		old->length = CHANGING;
		counters[was_egress].value += atomic_exchange(&old->value, 0);
		name_counter(old, key, length);
	}
found:
	routes_of[i]++;
	pthread_mutex_unlock(&taking);
	return i;
}

static void leave_counter(uint32_t number)
{
	pthread_mutex_lock(&taking);
	routes_of[number]--;
	pthread_mutex_unlock(&taking);
}

/* What Envoy calls. */

struct route {
	bool reset;
	bool needs_host;
	bool denied;
	bool counted;
	uint32_t counter;
	size_t count;
	struct text names[];
	/* followed by the text that they point into */
};

/* A filter's configuration has no state: any address that is not NULL will do. */
static const char nothing;

EXPORT const char *envoy_dynamic_module_on_program_init(void)
{
	return open_counters() ? ABI_VERSION : NULL;
}

EXPORT const void *envoy_dynamic_module_on_http_filter_config_new(void *filter, struct text name,
								  struct text config)
{
	(void)filter, (void)name, (void)config;
	return &nothing;
}

EXPORT void envoy_dynamic_module_on_http_filter_config_destroy(const void *config)
{
	(void)config;
}

/* NULL makes Envoy refuse the routes. */
EXPORT const void *envoy_dynamic_module_on_http_filter_per_route_config_new(struct text name,
									    struct text config)
{
	struct route *route;
	char *words, *word, *rest, *key;
	size_t most = config.length / 2 + 1, names = most * sizeof(route->names[0]);

	(void)name;
	route = calloc(1, sizeof(*route) + names + config.length + 1);
	if (!route)
		return NULL;
	words = (char *)route + sizeof(*route) + names;
	memcpy(words, config.at, config.length);
	key = strchr(words, '\n');
	if (key)
		*key++ = 0;
	word = strtok_r(words, " ", &rest);
	if (!word || (strcmp(word, "reset") && strcmp(word, "answer"))) {
		free(route);
		return NULL;
	}
	route->reset = !strcmp(word, "reset");
	while ((word = strtok_r(NULL, " ", &rest))) {
		if (!strcmp(word, "?"))
			route->needs_host = true;
		else if (!strcmp(word, "="))
			route->denied = true;
		else
			route->names[route->count++] = (struct text){word, strlen(word)};
	}
	if (key) {
		route->counter = take_counter(key, strlen(key));
		route->counted = true;
	}
	return route;
}

EXPORT void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *config)
{
	const struct route *route = config;

	if (route->counted)
		leave_counter(route->counter);
	free((void *)route);
}

/* A request; `details`: why it is denied, once that is so and its body is awaited. */
struct request {
	const char *details;
	unsigned int pieces;
};

/* Without it Envoy answers the request itself, with an error. */
EXPORT const void *envoy_dynamic_module_on_http_filter_new(const void *config, void *stream)
{
	(void)config, (void)stream;
	return calloc(1, sizeof(struct request));
}

EXPORT void envoy_dynamic_module_on_http_filter_destroy(const void *filter)
{
	free((void *)filter);
}

static int answer(void *stream, const char *details)
{
	static const char body[] = "Access denied\r\n";

	envoy_dynamic_module_callback_http_send_response(stream, FORBIDDEN, NULL, 0,
							 (struct text){body, sizeof(body) - 1},
							 (struct text){details, strlen(details)});
	return STOP;
}

static bool has(void *stream, const char *name)
{
	struct text value;
	size_t count = 0;

	return envoy_dynamic_module_callback_http_get_header(stream, REQUEST_HEADER,
							     (struct text){name, strlen(name)},
							     &value, 0, &count) &&
	       count;
}

static bool begins_with(struct text text, const char *start)
{
	return text.length >= strlen(start) && !memcmp(text.at, start, strlen(start));
}

static bool is_http1(void *stream)
{
	struct text protocol = {0};

	return envoy_dynamic_module_callback_http_filter_get_attribute_string(
		       stream, REQUEST_PROTOCOL, &protocol) &&
	       begins_with(protocol, "HTTP/1.");
}

/* Whether a 403 must follow a body: one is on its way that ends by itself, and whose sender does
 * not wait for us. */
static bool must_wait(void *stream, const struct route *route, bool end)
{
	return !end && !route->reset && is_http1(stream) && !has(stream, "upgrade") &&
	       !has(stream, "expect") &&
	       (has(stream, "content-length") || has(stream, SENT "transfer-encoding"));
}

static int hold(struct request *request, const char *details)
{
	request->details = details;
	return STOP;
}

static int deny(void *stream, struct request *request, const struct route *route, bool end,
		const char *details)
{
	return must_wait(stream, route, end) ? hold(request, details) : answer(stream, details);
}

/* Whether the server sees none but a true Host. */
static bool settle_host(void *stream, const struct route *route)
{
	static const struct text host = {":authority", 10};
	struct text value = {0};
	size_t count;

	if (!envoy_dynamic_module_callback_http_get_header(stream, REQUEST_HEADER, host, &value, 0,
							   &count) ||
	    value.length != strlen(NO_HOST) || memcmp(value.at, NO_HOST, value.length))
		return true;
	return !route->needs_host &&
	       envoy_dynamic_module_callback_http_filter_get_attribute_string(
		       stream, DESTINATION_ADDRESS, &value) &&
	       envoy_dynamic_module_callback_http_set_header(stream, REQUEST_HEADER, host, value);
}

/* A redirect to https hangs on it in many a server. */
static void leave_proto(void *stream)
{
	static const struct text name = {"x-forwarded-proto", 17}, none = {0};

	if (!has(stream, SENT "x-forwarded-proto"))
		envoy_dynamic_module_callback_http_set_header(stream, REQUEST_HEADER, name, none);
}

EXPORT int envoy_dynamic_module_on_http_filter_request_headers(void *stream, const void *filter,
							       bool end)
{
	struct request *request = (void *)filter;
	const struct route *route;

	leave_proto(stream);
	route = envoy_dynamic_module_callback_get_most_specific_route_config(stream);
	if (!route)
		return CONTINUE;
	for (size_t i = 0; i < route->count; i++) {
		struct text name = route->names[i], value;
		size_t most = 1, count = 0;
		const char *details = "twice";

		if (*name.at == '!') {
			name = (struct text){name.at + 1, name.length - 1};
			most = 0;
			details = "alias";
		}
		if (!envoy_dynamic_module_callback_http_get_header(stream, REQUEST_HEADER, name,
								   &value, 0, &count) ||
		    count <= most)
			continue;
		return deny(stream, request, route, end, details);
	}
	if (!settle_host(stream, route))
		return deny(stream, request, route, end, "no_host");
	if (route->denied && must_wait(stream, route, end))
		return hold(request, "denied"); /* else the route itself answers */
	if (route->counted)
		atomic_fetch_add_explicit(&counters[route->counter].value, 1, memory_order_relaxed);
	return CONTINUE;
}

EXPORT int envoy_dynamic_module_on_http_filter_request_body(void *stream, const void *filter,
							    bool end)
{
	struct request *request = (void *)filter;
	const char *details = request->details;

	if (!details)
		return CONTINUE;
	if (end || ++request->pieces == HELD_MAX)
		answer(stream, details);
	return DROP;
}

EXPORT int envoy_dynamic_module_on_http_filter_request_trailers(void *stream, const void *filter)
{
	const struct request *request = filter;

	return request->details ? answer(stream, request->details) : CONTINUE;
}

/* Whether the server has ended the connection; what is HTTP/2 has words for that. */
static bool was_ended(void *stream, struct text details)
{
	return begins_with(details, ENDED) && is_http1(stream);
}

EXPORT int envoy_dynamic_module_on_http_filter_local_reply(void *stream, const void *filter,
							   uint32_t status, struct text details,
							   bool reset_imminent)
{
	const struct route *route;

	(void)filter, (void)reset_imminent;
	if (status == UNAVAILABLE && was_ended(stream, details))
		return RESET;
	if (status < BAD_REQUEST || status >= SERVER_ERROR)
		return CONTINUE;
	route = envoy_dynamic_module_callback_get_most_specific_route_config(stream);
	if (!route)
		return RESET;
	return status == FORBIDDEN && route->reset ? RESET : CONTINUE;
}

/* Envoy asks for all of these, and we have nothing to say. */
#define CONTINUES(event)                                                                           \
	EXPORT int envoy_dynamic_module_on_http_filter_##event(void)                               \
	{                                                                                          \
		return CONTINUE;                                                                   \
	}
#define IGNORES(event)                                                                             \
	EXPORT void envoy_dynamic_module_on_http_filter_##event(void)                              \
	{                                                                                          \
	}

CONTINUES(response_headers)
CONTINUES(response_body)
CONTINUES(response_trailers)
IGNORES(stream_complete)
IGNORES(http_callout_done)
IGNORES(http_stream_headers)
IGNORES(http_stream_data)
IGNORES(http_stream_trailers)
IGNORES(http_stream_complete)
IGNORES(http_stream_reset)
IGNORES(scheduled)
IGNORES(downstream_above_write_buffer_high_watermark)
IGNORES(downstream_below_write_buffer_low_watermark)

// SPDX-License-Identifier: Apache-2.0
/*
 * A module of Envoy's: how a request is denied.  Envoy itself can only answer; no other filter
 * of 1.40 ends a stream without a reply.
 *
 * A route carries a text: `reset` or `answer`, then the names of headers that a request must not
 * have twice (servers take the one or the other), with a space between; with `!` before the name,
 * not even once (some servers take `_` for `-`).  Else it is denied with 403.  Where the text says
 * `reset`, a 403 that Envoy is about to send of itself is not sent: the stream is reset, that is,
 * HTTP/1's connection is closed.  A 403 of the server passes, for it is no local reply.  What has
 * no route is no request that rules could judge (malformed, `OPTIONS *`); it gets no answer either.
 *
 * Envoy's ABI for modules is bound to its version, which the loader checks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ABI_VERSION "v0.2.0" /* of Envoy 1.40 */
#define EXPORT	    __attribute__((visibility("default")))

enum { CONTINUE = 0, STOP = 1, RESET = 1 };
enum { REQUEST_HEADER = 0 };
enum { BAD_REQUEST = 400, FORBIDDEN = 403, SERVER_ERROR = 500 };

struct text {
	const char *at;
	size_t length;
};

/* What Envoy offers. */
const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *stream);
bool envoy_dynamic_module_callback_http_get_header(void *stream, int kind, struct text name,
						   struct text *value, size_t index, size_t *count);
void envoy_dynamic_module_callback_http_send_response(void *stream, uint32_t status,
						      const void *headers, size_t header_count,
						      struct text body, struct text details);

/* What Envoy calls. */

struct route {
	bool reset;
	size_t count;
	struct text names[];
	/* followed by the text that they point into */
};

/* No state but the routes': any address that is not NULL will do. */
static const char nothing;

EXPORT const char *envoy_dynamic_module_on_program_init(void)
{
	return ABI_VERSION;
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
	char *words, *word, *rest;
	size_t most = config.length / 2 + 1, names = most * sizeof(route->names[0]);

	(void)name;
	route = calloc(1, sizeof(*route) + names + config.length + 1);
	if (!route)
		return NULL;
	words = (char *)route + sizeof(*route) + names;
	memcpy(words, config.at, config.length);
	word = strtok_r(words, " ", &rest);
	if (!word || (strcmp(word, "reset") && strcmp(word, "answer"))) {
		free(route);
		return NULL;
	}
	route->reset = !strcmp(word, "reset");
	while ((word = strtok_r(NULL, " ", &rest)))
		route->names[route->count++] = (struct text){word, strlen(word)};
	return route;
}

EXPORT void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *route)
{
	free((void *)route);
}

EXPORT const void *envoy_dynamic_module_on_http_filter_new(const void *config, void *stream)
{
	(void)config, (void)stream;
	return &nothing;
}

EXPORT void envoy_dynamic_module_on_http_filter_destroy(const void *filter)
{
	(void)filter;
}

EXPORT int envoy_dynamic_module_on_http_filter_request_headers(void *stream, const void *filter,
							       bool end)
{
	static const char body[] = "Access denied\r\n";
	const struct route *route;

	(void)filter, (void)end;
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
		envoy_dynamic_module_callback_http_send_response(
			stream, FORBIDDEN, NULL, 0, (struct text){body, sizeof(body) - 1},
			(struct text){details, strlen(details)});
		return STOP;
	}
	return CONTINUE;
}

EXPORT int envoy_dynamic_module_on_http_filter_local_reply(void *stream, const void *filter,
							   uint32_t status, struct text details,
							   bool reset_imminent)
{
	const struct route *route;

	(void)filter, (void)details, (void)reset_imminent;
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

CONTINUES(request_body)
CONTINUES(request_trailers)
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

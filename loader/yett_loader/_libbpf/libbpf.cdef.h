/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we call of libbpf (1.1 or newer), for cffi.  Structs end in `...;`: the compiler fills in
 * the layout from <bpf/bpf.h>, <bpf/libbpf.h> and <linux/bpf.h>.
 */

/* -- errors and log -- */
int libbpf_strerror(int err, char *buf, size_t size);
const char *libbpf_version_string(void);
int libbpf_num_possible_cpus(void);
void yett_log_to_python(void);
extern "Python" void yett_log(int level, char *line);

/* -- objects -- */
struct bpf_object;
struct bpf_map;
struct bpf_program;
struct bpf_object_open_opts {
	size_t sz;
	const char *object_name;
	...;
};
struct bpf_object *bpf_object__open_mem(const void *buf, size_t size, const struct bpf_object_open_opts *opts);
int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *obj);
struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);
struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);

/* -- maps of an object -- */
const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
_Bool bpf_map__is_internal(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__map_flags(const struct bpf_map *map);
int bpf_map__type(const struct bpf_map *map);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
struct bpf_map *bpf_map__inner_map(struct bpf_map *map);
const void *bpf_map__initial_value(struct bpf_map *map, size_t *size);

/* -- programs of an object -- */
const char *bpf_program__name(const struct bpf_program *prog);
const char *bpf_program__section_name(const struct bpf_program *prog);
int bpf_program__fd(const struct bpf_program *prog);
int bpf_program__set_autoload(struct bpf_program *prog, _Bool autoload);

/* -- anything with a file descriptor -- */
int bpf_obj_pin(int fd, const char *path);
int bpf_obj_get(const char *path);
int bpf_obj_get_info_by_fd(int fd, void *info, uint32_t *size);
struct bpf_map_info {
	uint32_t type;
	uint32_t id;
	uint32_t key_size;
	uint32_t value_size;
	uint32_t max_entries;
	uint32_t map_flags;
	char name[16];
	uint32_t btf_id;
	uint32_t btf_key_type_id;
	uint32_t btf_value_type_id;
	...;
};
struct bpf_prog_info {
	uint32_t type;
	uint32_t id;
	uint8_t tag[8];
	uint32_t xlated_prog_len;
	uint32_t nr_map_ids;
	uint64_t map_ids;
	char name[16];
	uint64_t load_time;
	uint32_t verified_insns;
	...;
};
/* struct bpf_link_info as kernels from 6.6 on fill it for tcx; older headers lack the member */
struct tcx_link_info {
	uint32_t type;
	uint32_t id;
	uint32_t prog_id;
	uint32_t pad;
	uint32_t ifindex;
	uint32_t attach_type;
};

/* -- map elements -- */
struct bpf_map_create_opts {
	size_t sz;
	uint32_t inner_map_fd;
	uint32_t map_flags;
	...;
};
int bpf_map_create(int type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t max_entries,
		   const struct bpf_map_create_opts *opts);
int bpf_map_get_fd_by_id(uint32_t id);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_get_next_key(int fd, const void *key, void *next_key);
struct bpf_map_batch_opts {
	size_t sz;
	uint64_t elem_flags;
	uint64_t flags;
	...;
};
int bpf_map_update_batch(int fd, const void *keys, const void *values, uint32_t *count,
			 const struct bpf_map_batch_opts *opts);
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, uint32_t *count,
			 const struct bpf_map_batch_opts *opts);

/* -- programs -- */
struct bpf_insn {
	uint8_t code;
	...;
};
int bpf_prog_load(int type, const char *name, const char *license, const struct bpf_insn *insns,
		  size_t insn_cnt, const void *opts);
struct bpf_test_run_opts {
	size_t sz;
	const void *data_in;
	void *data_out;
	uint32_t data_size_in;
	uint32_t data_size_out;
	const void *ctx_in;
	void *ctx_out;
	uint32_t ctx_size_in;
	uint32_t ctx_size_out;
	uint32_t retval;
	int repeat;
	uint32_t duration;
	...;
};
int bpf_prog_test_run_opts(int prog_fd, struct bpf_test_run_opts *opts);
struct __sk_buff {
	uint32_t mark;
	uint32_t ingress_ifindex;
	uint32_t ifindex;
	uint32_t priority;
	uint32_t cb[5];
	uint64_t tstamp;
	uint32_t wire_len;
	uint32_t gso_segs;
	uint32_t gso_size;
	...;
};

/* -- links: tcx (kernel 6.6) -- */
int bpf_link_create(int prog_fd, int target_fd, int attach_type, const void *opts);
struct bpf_link_update_opts {
	size_t sz;
	uint32_t flags;
	uint32_t old_prog_fd;
	...;
};
int bpf_link_update(int link_fd, int new_prog_fd, const struct bpf_link_update_opts *opts);
int bpf_link_detach(int link_fd);

/* -- clsact filters (kernels below 6.6) -- */
struct bpf_tc_hook {
	size_t sz;
	int ifindex;
	int attach_point;
	uint32_t parent;
	...;
};
struct bpf_tc_opts {
	size_t sz;
	int prog_fd;
	uint32_t flags;
	uint32_t prog_id;
	uint32_t handle;
	uint32_t priority;
	...;
};
int bpf_tc_hook_create(struct bpf_tc_hook *hook);
int bpf_tc_attach(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);
int bpf_tc_detach(const struct bpf_tc_hook *hook, const struct bpf_tc_opts *opts);
int bpf_tc_query(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);

/* -- ring buffer -- */
struct ring_buffer;
struct ring_buffer *ring_buffer__new(int map_fd, int (*sample)(void *ctx, void *data, size_t size), void *ctx,
				     const void *opts);
int ring_buffer__consume(struct ring_buffer *rb);
void ring_buffer__free(struct ring_buffer *rb);
extern "Python" int yett_sample(void *ctx, void *data, size_t size);

/* -- numbers of <linux/bpf.h> and libbpf that we use; the compiler knows them -- */
#define BPF_ANY ...
#define BPF_NOEXIST ...
#define BPF_EXIST ...
#define BPF_F_NO_PREALLOC ...
#define BPF_F_REPLACE ...
static const int BPF_MAP_TYPE_HASH;
static const int BPF_MAP_TYPE_ARRAY;
static const int BPF_MAP_TYPE_PERCPU_HASH;
static const int BPF_MAP_TYPE_PERCPU_ARRAY;
static const int BPF_MAP_TYPE_LPM_TRIE;
static const int BPF_MAP_TYPE_ARRAY_OF_MAPS;
static const int BPF_MAP_TYPE_HASH_OF_MAPS;
static const int BPF_MAP_TYPE_RINGBUF;
static const int BPF_PROG_TYPE_SCHED_CLS;
static const int BPF_TC_INGRESS;
static const int BPF_TC_EGRESS;
static const int BPF_TC_F_REPLACE;
static const int YETT_TCX_INGRESS;
static const int YETT_TCX_EGRESS;
static const int LIBBPF_WARN;
static const int LIBBPF_INFO;
static const int LIBBPF_DEBUG;

/* which yett_abi.h this extension was built from */
static const char yett_abi_digest[];

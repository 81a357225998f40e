/*
 * GCC's unwinder asks the C library for the exception tables that belong to a
 * program counter. Since GCC 12 it does so through glibc's _dl_find_object()
 * and through nothing else, and musl does not have that function. Without it
 * libgcc_eh.a cannot be linked with musl, and Rust could not catch a panic.
 *
 * The layout is the one of glibc's <dlfcn.h> on architectures without
 * DLFO_STRUCT_HAS_EH_DBASE and DLFO_STRUCT_HAS_EH_COUNT (x86-64, AArch64).
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdint.h>

struct found_object {
	unsigned long long flags;
	void *map_start, *map_end;
	struct link_map *link_map;
	void *eh_frame_hdr;
	unsigned long long reserved[7];
};

struct search {
	uintptr_t pc;
	struct found_object *result;
};

static int examine(struct dl_phdr_info *object, size_t size, void *data)
{
	const struct search *search = data;
	uintptr_t start = 0, end = 0, tables = 0;

	(void)size;
	for (ElfW(Half) i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
		uintptr_t at = object->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_GNU_EH_FRAME) {
			tables = at;
		} else if (segment->p_type == PT_LOAD && search->pc >= at &&
			   search->pc - at < segment->p_memsz) {
			start = at;
			end = at + segment->p_memsz;
		}
	}
	if (end == 0 || tables == 0)
		return 0;
	*search->result = (struct found_object){
		.map_start = (void *)start,
		.map_end = (void *)end,
		.eh_frame_hdr = (void *)tables,
	};
	return 1;
}

int _dl_find_object(void *pc, struct found_object *result)
{
	struct search search = { (uintptr_t)pc, result };

	return dl_iterate_phdr(examine, &search) ? 0 : -1;
}

/* What a peer outside of the harness exports: an array of these by the name `peers`, ended by one without a name.
   The Rust side is `src/peers/plugin.rs`. */
#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct Peer {
  const char *name;
  /* Makes what the next load needs and is no part of it; may be null. Called once for each load to come. */
  void (*prepare)(void);
  /* The address of `symbol` in the object, which stays in memory until the unload. Null: it failed, and said why. */
  void *(*load)(const void *object, size_t size, const char *symbol, void **handle);
  void (*unload)(void *handle);
  /* A further symbol of a loaded object; may be null. */
  void *(*lookup)(void *handle, const char *symbol);
} Peer;
#ifdef __cplusplus
}
#endif

// The architectures that there are. See arch.h.
#include "runtime/model/arch.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

static const struct gyre_arch *const all[] = {&gyre_arch_llama,   &gyre_arch_mistral3, &gyre_arch_qwen2,
                                              &gyre_arch_qwen3,   &gyre_arch_phi3,     &gyre_arch_smollm3,
                                              &gyre_arch_granite, &gyre_arch_minicpm,  &gyre_arch_gemma3};

const struct gyre_arch *gyre_arch_find(const char *name, gyre_container container)
{
    const bool own = !strncmp(name, "gyre-", 5) && container == GYRE_CONTAINER_GGUF;
    for (size_t i = 0; i < GYRE_COUNT(all); i++) {
        const char *const *type = all[i]->hf;
        if (container == GYRE_CONTAINER_GGUF && !strcmp(all[i]->name, own ? name + 5 : name)) return all[i];
        for (; container == GYRE_CONTAINER_HF && *type; type++)
            if (!strcmp(*type, name)) return all[i];
    }
    return NULL;
}

void gyre_arch_list(char *out, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < GYRE_COUNT(all) && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s",
                               !i                         ? ""
                               : i + 1 == GYRE_COUNT(all) ? " and "
                                                          : ", ",
                               all[i]->name);
}

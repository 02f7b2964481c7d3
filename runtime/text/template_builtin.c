// Templates for models that bring none: the ways of writing a conversation that several families share. Each has
// messages, a generation prompt and nothing else; a model that was trained to call tools brings its own template.
#include "runtime/text/template.h"

#include "runtime/util/base.h"

// A first system message belongs to the first user's turn where a family has no turn for it.
#define SYSTEM_APART                                                                                                   \
    "{%- set ns = namespace(system='') -%}"                                                                            \
    "{%- if messages and messages[0].role == 'system' -%}"                                                             \
    "{%- set ns.system = messages[0].content | trim -%}{%- set messages = messages[1:] -%}"                            \
    "{%- endif -%}"

const struct gyre_builtin_template gyre_builtin_templates[] = {
    {.name = "chatml",
     .sign = "<|im_start|>",
     .eos = "<|im_end|>",
     .text = "{%- for message in messages -%}"
             "{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}"
             "{%- endfor -%}"
             "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"},
    {.name = "llama3",
     .sign = "<|start_header_id|>",
     .bos = "<|begin_of_text|>",
     .eos = "<|eot_id|>",
     .text =
         "{{- bos_token -}}"
         "{%- for message in messages -%}"
         "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + (message.content or '') | trim + "
         "'<|eot_id|>' }}"
         "{%- endfor -%}"
         "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"},
    {.name = "gemma",
     .sign = "<start_of_turn>",
     .bos = "<bos>",
     .eos = "<end_of_turn>",
     .text = "{{- bos_token -}}" SYSTEM_APART "{%- for message in messages -%}"
             "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' }}"
             "{%- if ns.system and message.role == 'user' -%}{{ ns.system + '\\n\\n' }}{%- set ns.system = '' -%}"
             "{%- endif -%}"
             "{{ (message.content or '') | trim + '<end_of_turn>\\n' }}"
             "{%- endfor -%}"
             "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"},
    {.name = "mistral",
     .sign = "[INST]",
     .bos = "<s>",
     .eos = "</s>",
     .text = "{{- bos_token -}}" SYSTEM_APART "{%- for message in messages -%}"
             "{%- if message.role == 'assistant' -%}{{ (message.content or '') | trim + eos_token }}"
             "{%- else -%}{{ '[INST] ' }}"
             "{%- if ns.system -%}{{ ns.system + '\\n\\n' }}{%- set ns.system = '' -%}{%- endif -%}"
             "{{ message.content or '' }}{{ ' [/INST]' }}"
             "{%- endif -%}"
             "{%- endfor -%}"},
    {.name = "phi3",
     .sign = "<|user|>",
     .eos = "<|end|>",
     .text = "{%- for message in messages -%}"
             "{{ '<|' + message.role + '|>\\n' + (message.content or '') + '<|end|>\\n' }}"
             "{%- endfor -%}"
             "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"},
    {.name = "plain", // for models that know no turns at all
     .text = SYSTEM_APART "{%- if ns.system -%}{{ ns.system + '\\n\\n' }}{%- endif -%}"
                          "{%- for message in messages -%}"
                          "{{ message.role | capitalize + ': ' + (message.content or '') + '\\n' }}"
                          "{%- endfor -%}"
                          "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"},
};
const unsigned gyre_n_builtin_templates = GYRE_COUNT(gyre_builtin_templates);

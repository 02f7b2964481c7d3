// GET /metrics.
#include "cli/serve/serve.h"

#include <stdio.h>
#include <stdlib.h>

char *serve_metrics(struct serve *s)
{
    struct serve_counts c;
    serve_queue_count(s->queue, &c);
    const gyre_engine_info *e = serve_queue_engine(s->queue);
    const struct {
        const char *name, *kind, *help;
        double value;
    } rows[] = {
        {"gyre_requests_running", "gauge", "Sequences in a slot.", c.running},
        {"gyre_requests_waiting", "gauge", "Sequences that wait for a slot.", c.waiting},
        {"gyre_slots", "gauge", "Sequences that can run at once.", s->slots},
        {"gyre_requests_total", "counter", "Requests for text that were taken.", (double)c.requests},
        {"gyre_requests_refused_total", "counter", "Requests that found the queue full.", (double)c.refused},
        {"gyre_requests_cancelled_total", "counter", "Requests whose client went away.", (double)c.cancelled},
        {"gyre_requests_failed_total", "counter", "Requests that ended with an error.", (double)c.failed},
        {"gyre_requests_late_total", "counter", "Requests whose time was over.", (double)c.late},
        {"gyre_prompt_tokens_total", "counter", "Tokens of prompts, cached ones too.", (double)c.prompt_tokens},
        {"gyre_cached_tokens_total", "counter", "Tokens of prompts found in the cache.", (double)c.cached_tokens},
        {"gyre_generated_tokens_total", "counter", "Tokens that were generated.", (double)c.generated_tokens},
        {"gyre_queue_seconds_total", "counter", "Time that requests waited to start.", c.queue_s},
        {"gyre_requests_started_total", "counter", "Requests that started.", (double)c.started},
        {"gyre_steps_total", "counter", "Steps of the engine.", (double)c.scheduler.steps},
        {"gyre_step_rows_total", "counter", "Tokens that went through the model.", (double)c.scheduler.rows},
        {"gyre_step_seconds_total", "counter", "Time of those steps.", (double)c.scheduler.step_ns * 1e-9},
        {"gyre_kv_page_tokens", "gauge", "Tokens in a page of the cache.", c.scheduler.page_tokens},
        {"gyre_kv_pages", "gauge", "Pages of the cache.", c.scheduler.pages},
        {"gyre_kv_pages_held", "gauge", "Pages that a sequence holds.", c.scheduler.pages_held},
        {"gyre_kv_pages_shared", "gauge", "Pages that several sequences hold.", c.scheduler.pages_shared},
        {"gyre_kv_pages_cached", "gauge", "Pages that no sequence holds, with a text that may come again.",
         c.scheduler.pages_cached},
        {"gyre_device_weight_bytes", "gauge", "Device memory of the weights.", (double)e->weight_bytes},
        {"gyre_device_kv_bytes", "gauge", "Device memory of the cache.", (double)e->kv_bytes},
        {"gyre_device_faults_total", "counter", "Steps that failed.", (double)c.faults},
        {"gyre_device_reopened_total", "counter", "How often the device was opened anew.", (double)c.reopened},
        {"gyre_up", "gauge", "1 where /health says ok.", c.healthy},
    };
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out) return NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", rows[i].name, rows[i].help, rows[i].name, rows[i].kind,
                rows[i].name, rows[i].value);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

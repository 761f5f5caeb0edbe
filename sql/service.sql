-- The embedding service: one process for the whole server that runs the networks.
CREATE FUNCTION copymatch.service_status(
    OUT path text, OUT path_reason text, OUT state text, OUT supervisor integer, OUT process integer, OUT provider text,
    OUT fallback_reason text, OUT runtime_version text, OUT threads integer, OUT models integer, OUT memory bigint,
    OUT started timestamptz, OUT restarts bigint, OUT last_trouble text, OUT slots integer, OUT slots_in_use integer,
    OUT library text, OUT device_memory bigint, OUT device_memory_total bigint)
    AS 'MODULE_PATHNAME', 'service_status_wrapper' LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION copymatch.service_status() IS 'what copymatch.service shows';

CREATE VIEW copymatch.service AS SELECT * FROM copymatch.service_status();
COMMENT ON VIEW copymatch.service IS
    'the embedding service, and which path this session''s images take: service, or session (a '
    'network of its own) and why';
COMMENT ON COLUMN copymatch.service.path_reason IS 'why not the service';
COMMENT ON COLUMN copymatch.service.supervisor IS 'process id of the background worker that owns the process';
COMMENT ON COLUMN copymatch.service.provider IS 'execution provider that runs the networks: cpu, cuda or tensorrt';
COMMENT ON COLUMN copymatch.service.fallback_reason IS
    'why that is the CPU where a device was wished for; for members of copymatch_admin';
COMMENT ON COLUMN copymatch.service.runtime_version IS 'of ONNX Runtime';
COMMENT ON COLUMN copymatch.service.threads IS 'threads that run networks on the CPU';
COMMENT ON COLUMN copymatch.service.models IS 'models that are loaded';
COMMENT ON COLUMN copymatch.service.started IS 'when the process was started';
COMMENT ON COLUMN copymatch.service.slots IS 'images that may be at the service at a time';
COMMENT ON COLUMN copymatch.service.slots_in_use IS 'of these, now';
COMMENT ON COLUMN copymatch.service.library IS 'path of ONNX Runtime; for members of copymatch_admin';
COMMENT ON COLUMN copymatch.service.device_memory IS
    'bytes of the device''s memory in use, by whichever process, when a model was last loaded or given up; '
    'NULL on the CPU';
COMMENT ON COLUMN copymatch.service.device_memory_total IS 'bytes of memory that the device has';
COMMENT ON COLUMN copymatch.service.path IS 'service, or session: this session loads the network for itself';
COMMENT ON COLUMN copymatch.service.state IS
    'running, starting, failing (its process died and is started again after a while), missing (its program is not '
    'installed), stopped, off, not preloaded';
COMMENT ON COLUMN copymatch.service.process IS
    'process id of the program that runs the networks; it shares no memory of PostgreSQL''s';
COMMENT ON COLUMN copymatch.service.memory IS 'bytes that it has in memory, with what it shares';
COMMENT ON COLUMN copymatch.service.restarts IS
    'how often it died or was ended for not answering, since the server''s start';
COMMENT ON COLUMN copymatch.service.last_trouble IS 'for members of copymatch_admin, as fallback_reason and library';
GRANT SELECT ON copymatch.service TO PUBLIC;

CREATE FUNCTION copymatch.service_counters(
    OUT images bigint, OUT bulk_images bigint, OUT batches bigint, OUT mean_batch double precision, OUT waiting integer,
    OUT running integer, OUT sessions_without_slot integer, OUT wait_p50 double precision,
    OUT wait_p95 double precision, OUT wait_p99 double precision, OUT run_p50 double precision,
    OUT run_p95 double precision, OUT run_p99 double precision, OUT abandoned bigint, OUT crashed bigint,
    OUT timed_out bigint, OUT unavailable bigint, OUT failed bigint, OUT queue_full bigint, OUT smaller_batches bigint,
    OUT models_loaded bigint, OUT models_evicted bigint)
    AS 'MODULE_PATHNAME', 'service_counters_wrapper' LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION copymatch.service_counters() IS 'what copymatch.service_stats shows';
REVOKE ALL ON FUNCTION copymatch.service_counters() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.service_counters() TO copymatch_admin;

CREATE VIEW copymatch.service_stats AS SELECT * FROM copymatch.service_counters();
COMMENT ON VIEW copymatch.service_stats IS
    'what the embedding service has done since the server''s start, for all databases: images, batches, times in '
    'milliseconds (at most a fifth too high), errors by kind';
COMMENT ON COLUMN copymatch.service_stats.images IS 'images that were embedded, each size of a model for itself';
COMMENT ON COLUMN copymatch.service_stats.bulk_images IS 'of these, for bulk work';
COMMENT ON COLUMN copymatch.service_stats.batches IS 'runs';
COMMENT ON COLUMN copymatch.service_stats.mean_batch IS 'images a run';
COMMENT ON COLUMN copymatch.service_stats.waiting IS 'images that wait now';
COMMENT ON COLUMN copymatch.service_stats.running IS 'runs under way now';
COMMENT ON COLUMN copymatch.service_stats.sessions_without_slot IS 'sessions that wait for a free slot now';
COMMENT ON COLUMN copymatch.service_stats.wait_p95 IS 'as wait_p50';
COMMENT ON COLUMN copymatch.service_stats.wait_p99 IS 'as wait_p50';
COMMENT ON COLUMN copymatch.service_stats.run_p95 IS 'as run_p50';
COMMENT ON COLUMN copymatch.service_stats.run_p99 IS 'as run_p50';
COMMENT ON COLUMN copymatch.service_stats.timed_out IS 'requests whose run took longer than copymatch.service_timeout';
COMMENT ON COLUMN copymatch.service_stats.unavailable IS 'requests for which no process was to be had for that long';
COMMENT ON COLUMN copymatch.service_stats.failed IS
    'requests that ONNX Runtime refused, and models that were not loaded';
COMMENT ON COLUMN copymatch.service_stats.models_loaded IS
    'models that were loaded, again after each start of the process';
COMMENT ON COLUMN copymatch.service_stats.models_evicted IS 'models that gave way under copymatch.model_memory';
COMMENT ON COLUMN copymatch.service_stats.wait_p50 IS 'from an image''s arrival to its run';
COMMENT ON COLUMN copymatch.service_stats.run_p50 IS 'of the run';
COMMENT ON COLUMN copymatch.service_stats.abandoned IS 'requests whose session was cancelled or ended first';
COMMENT ON COLUMN copymatch.service_stats.crashed IS 'requests at which the process died twice';
COMMENT ON COLUMN copymatch.service_stats.queue_full IS
    'sessions that found no free slot within copymatch.service_timeout';
COMMENT ON COLUMN copymatch.service_stats.smaller_batches IS 'runs for which a device had no memory at once';
REVOKE ALL ON copymatch.service_stats FROM PUBLIC;
GRANT SELECT ON copymatch.service_stats TO copymatch_admin;

CREATE FUNCTION copymatch.service_model_list(
    OUT model text, OUT provider text, OUT memory bigint, OUT images bigint, OUT manifest_sha256 text)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'service_model_list_wrapper' LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION copymatch.service_model_list() IS 'what copymatch.service_models shows';
REVOKE ALL ON FUNCTION copymatch.service_model_list() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.service_model_list() TO copymatch_admin;

CREATE VIEW copymatch.service_models AS SELECT * FROM copymatch.service_model_list();
COMMENT ON VIEW copymatch.service_models IS
    'models that the embedding service has loaded, of all databases: the same manifest is the same model';
COMMENT ON COLUMN copymatch.service_models.model IS 'name and version, as the manifest says';
COMMENT ON COLUMN copymatch.service_models.provider IS 'execution provider that runs it';
COMMENT ON COLUMN copymatch.service_models.memory IS 'bytes that the process took for it';
COMMENT ON COLUMN copymatch.service_models.images IS 'images that it embedded';
COMMENT ON COLUMN copymatch.service_models.manifest_sha256 IS 'SHA-256 of its manifest, by which the service knows it';
REVOKE ALL ON copymatch.service_models FROM PUBLIC;
GRANT SELECT ON copymatch.service_models TO copymatch_admin;

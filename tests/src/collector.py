"""An OpenTelemetry collector for the tests: takes OTLP by gRPC and by HTTP, and prints what it got.

Each line on stdout is one JSON event, as the mesh's own processes print them. `--answer CODE` has it
refuse every export with that HTTP status (by gRPC: UNAVAILABLE); `--hang` has it never answer.
"""

import argparse
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

printing = threading.Lock()


def say(event):
    with printing:
        print(json.dumps(event), flush=True)


def plain(attributes):
    values = ((pair.key, pair.value) for pair in attributes)
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values}


def span_of(span):
    return {
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "name": span.name,
        "kind": trace.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "status": trace.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": plain(span.attributes),
        "events": [{"name": event.name, **plain(event.attributes)} for event in span.events],
    }


def tell(protocol, headers, request):
    for group in request.resource_spans:
        resource = plain(group.resource.attributes)
        spans = [span_of(span) for scope in group.scope_spans for span in scope.spans]
        for span in spans:
            span["resource"] = resource
        say({"event": "export", "protocol": protocol, "headers": headers, "spans": spans})


class Traces(service.TraceServiceServicer):
    def __init__(self, options):
        self.options = options

    def Export(self, request, context):
        if self.options.hang:
            threading.Event().wait()
        if self.options.answer:
            context.abort(grpc.StatusCode.UNAVAILABLE, "told to refuse")
        tell("grpc", dict(context.invocation_metadata()), request)
        return messages.ExportTraceServiceResponse()


def handler(options):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if options.hang:
                threading.Event().wait()
            right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            status = options.answer or (200 if right else 404)
            if status == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                tell("http", headers, messages.ExportTraceServiceRequest.FromString(body))
            answer = messages.ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", type=int)
    parser.add_argument("--hang", action="store_true")
    options = parser.parse_args()
    by_grpc = grpc.server(ThreadPoolExecutor(max_workers=4))
    service.add_TraceServiceServicer_to_server(Traces(options), by_grpc)
    port = by_grpc.add_insecure_port("127.0.0.1:0")
    by_grpc.start()
    by_http = ThreadingHTTPServer(("127.0.0.1", 0), handler(options))
    say({"event": "listening", "name": "grpc", "address": f"127.0.0.1:{port}"})
    say({"event": "listening", "name": "http", "address": f"127.0.0.1:{by_http.server_port}"})
    by_http.serve_forever()


main()

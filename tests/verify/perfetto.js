// Perfetto's trace processor, as its page has it in WebAssembly: requests on standard input, replies on
// standard output, both TraceProcessorRpcStream.  The argument is the directory of engine_bundle.js,
// which is written for a worker of a browser and finds here what it expects there.
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const { argv, exit, stdin } = process;
const failed = (error) => {
  fs.writeSync(2, `${String(error).slice(0, 2000)}\n`);
  exit(1);
};
process.on("uncaughtException", failed);
process.on("unhandledRejection", failed);

delete globalThis.process; // the bundle refuses to run where there is one
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = class {};
globalThis.location = { href: "http://localhost/engine_bundle.js" };
globalThis.XMLHttpRequest = class {
  open(method, url) {
    this.file = path.join(argv[2], path.basename(url));
  }
  send() {
    this.response = fs.readFileSync(this.file);
  }
};
vm.runInThisContext(fs.readFileSync(path.join(argv[2], "engine_bundle.js"), "utf8"));

const port = { postMessage: (data) => fs.writeSync(1, data) };
self.onmessage({ data: port });
stdin.on("data", (data) => port.onmessage({ data: new Uint8Array(data) }));

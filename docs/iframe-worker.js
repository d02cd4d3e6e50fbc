// Lets the search work where the pages are opened from a folder: browsers start no Worker there, so its script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inner = frame.contentWindow
      addEventListener("message", (event) => {
        if (event.source === this.inner) this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      })
      this.ready = new Promise((done) => (this.inner.started = done))
      this.inner.document.open()
      this.inner.document.write(
        `<script>postMessage = (data) => parent.postMessage(data, "*")</script><script src="${url}" onload="started()"></script>`,
      )
      this.inner.document.close()
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}

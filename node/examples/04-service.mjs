// Capture a machine when its server listens: each copy answers at once.
import { Image } from '@supermachine/core'

const { TEST_IMAGE, TEST_SERVICE } = process.env
const image = await Image.build({
  ref: TEST_IMAGE ?? 'nginx:alpine',
  // The image's own server, unless another is named.
  cmd: TEST_SERVICE ? ['sh', '-c', TEST_SERVICE] : undefined,
  listenerRequired: true,
  guestPort: 80
})
const vm = await image.start()
try {
  const port = await vm.exposeTcp(0, 80)
  const page = await fetch(`http://${port.localAddr}/`)
  console.log(page.status, await page.text())
  await port.stop()
} finally {
  await vm.release()
}

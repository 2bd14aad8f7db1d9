import { createPinia } from 'pinia'
import { createApp } from 'vue'
import { nameAccount, whenAnotherAccount, whenSignedOut } from '@/api/client'
import App from '@/app/App.vue'
import { buildRouter } from '@/app/router'
import { useSession } from '@/features/users/session'
import '@/styles/tokens.css'
import '@/styles/base.css'
import '@/styles/controls.css'

const app = createApp(App).use(createPinia())
nameAccount(() => useSession().account?.id ?? null)
whenSignedOut(() => useSession().ended())
whenAnotherAccount(() => useSession().superseded())
app.use(buildRouter()).mount('#app')
